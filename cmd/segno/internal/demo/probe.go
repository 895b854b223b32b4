package demo

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/segnodev/segno"
)

// Probe is the data of a run that looks after the upstream.
type Probe struct {
	Answer string `json:"answer"`
}

// States of the probe.
const (
	Ask      State = "ask"
	Answered State = "answered"
)

const (
	probeEvery = 500 * time.Millisecond
	probeTime  = 120 * time.Millisecond
)

// probeBackoff waits 0.5, 1 and 2 seconds, give or take a tenth, and trips at
// the fourth failure in a row.
var probeBackoff = segno.BackoffPolicy{Initial: 500 * time.Millisecond, StreakLimit: 4}

// probe is the workflow behind the flow "probe", which flaps with the upstream.
func (w *worker) probe() segno.Workflow[State, Probe] {
	return segno.Workflow[State, Probe]{
		Version: 1,
		Initial: Ask,
		Steps: segno.Steps[State, Probe]{
			Ask:      {Do: w.ask, Next: []State{Answered}},
			Answered: {Final: true},
		},
	}
}

func (w *worker) ask(ctx context.Context, d *Probe) (State, error) {
	select { // no run may end before the streak was read that the start found
	case <-w.returned:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if err := pause(ctx, probeTime); err != nil {
		return "", err
	}
	if _, err := os.Stat(upstream(w.job.DB)); err != nil {
		return "", errors.New("the upstream does not answer")
	}
	d.Answer = "here I am"
	return Answered, nil
}
