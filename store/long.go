package store

import (
	"maps"
	"slices"
	"sync"

	"github.com/segnodev/segno/engine"
)

// longRuns are open runs whose history has become too long. They are noticed
// when they enter a visit: to look for them would be to read every open run.
type longRuns struct {
	beyond int // so many visits; 0: never
	mu     sync.Mutex
	runs   map[int64]bool
}

// markLong notes a run that has gone on for some time since its history was
// long enough.
func (tx *Tx) markLong(c *engine.Change) {
	l := &tx.w.long
	visit := c.After.Visit
	if l.beyond == 0 || visit <= l.beyond || visit == c.Before.Visit || visit%max(l.beyond/10, 1) != 0 || c.After.Status.Ended() {
		return
	}
	run := c.After.Run
	tx.After(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.runs == nil {
			l.runs = map[int64]bool{}
		}
		l.runs[run] = true
	})
}

// Long returns the runs whose history has become too long since it was asked
// last. One that was missed is noticed again before long.
func (s *Store) Long() []int64 {
	l := &s.w.long
	l.mu.Lock()
	defer l.mu.Unlock()
	runs := slices.Sorted(maps.Keys(l.runs))
	clear(l.runs)
	return runs
}
