package demo

import (
	"math/rand/v2"
	"time"

	"github.com/segnodev/segno"
)

// A moment is when to kill.
type moment struct {
	name string
	come func(v *view, waited time.Duration) bool
	gone func(v *view) bool // it will not come any more; nil: with the next outage it will
}

// enoughWindow is what a restart surely fits into.
const enoughWindow = 600 * time.Millisecond

const anyMoment = "at a random moment"

var (
	inWindow = moment{name: "inside a backoff window", come: func(v *view, _ time.Duration) bool {
		return v.probe.Status == segno.StatusBackoff && v.probe.FailureStreak > 1 && v.window() > enoughWindow
	}}
	whileTripped = moment{name: "while a flow is tripped", come: func(v *view, _ time.Duration) bool {
		return v.probe.Status == segno.StatusTripped
	}}
	inRollback = moment{
		name: "in the middle of a rollback",
		come: func(v *view, waited time.Duration) bool { return v.undoing > 0 && waited > time.Second },
		gone: func(v *view) bool { return v.open == 0 },
	}
)

// inChunk is some time into the work.
func inChunk() moment {
	return moment{name: "in the middle of a chunk", come: after(500*time.Millisecond, 1500*time.Millisecond), gone: func(v *view) bool { return v.ingested }}
}

func atRandom() moment {
	return moment{name: anyMoment, come: after(100*time.Millisecond, 1200*time.Millisecond)}
}

// after waits for a random time in the given range.
func after(from, to time.Duration) func(*view, time.Duration) bool {
	d := from + rand.N(to-from)
	return func(_ *view, waited time.Duration) bool { return waited > d }
}

// moments chooses n of them.
func moments(n int) []moment {
	switch n {
	case 1:
		return []moment{inWindow}
	case 2:
		return []moment{inWindow, inRollback}
	case 3:
		return []moment{inChunk(), inWindow, inRollback}
	}
	list := []moment{inChunk(), inWindow, whileTripped, inRollback}
	for len(list) < n {
		list = append(list, atRandom())
	}
	return list
}
