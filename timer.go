package segno

import (
	"context"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
)

const timerDue = "segno.timer.due"

// Timer waits until the instant that until returns, and then runs then. The
// instant is committed before the wait begins: until is called once per visit,
// however often the program is restarted meanwhile. Step.Timeout bounds the
// whole visit.
func Timer[S State, D any](until func(context.Context, *D) (time.Time, error), then DoFunc[S, D]) DoFunc[S, D] {
	return func(ctx context.Context, d *D) (S, error) {
		v := engine.VisitFrom(ctx)
		if v == nil {
			return "", fmt.Errorf("%w: a Timer needs the context of a step", ErrConfig)
		}
		due, set, err := LoadMemo[time.Time](ctx, timerDue)
		if err == nil {
			err = v.OwnTimeout()
		}
		if err != nil {
			return "", err
		}
		if set && !v.Now().Before(due) {
			return then(ctx, d)
		}
		if !set {
			if due, err = until(ctx, d); err != nil {
				return "", err
			}
			if err := joinMemo(v, timerDue, due); err != nil {
				return "", err
			}
		}
		return "", SnoozeUntil(due)
	}
}

const sleepSet = "segno.sleep.set"

// Sleep waits for d and goes to next: segno.Sleep[Order](time.Hour, Ship). It
// goes on over restarts, and never lasts longer than d, whatever the clock does.
func Sleep[D any, S State](d time.Duration, next S) DoFunc[S, D] {
	return func(ctx context.Context, _ *D) (S, error) {
		v := engine.VisitFrom(ctx)
		if v == nil {
			return "", fmt.Errorf("%w: Sleep needs the context of a step", ErrConfig)
		}
		if err := v.OwnTimeout(); err != nil {
			return "", err
		}
		_, slept, err := LoadMemo[bool](ctx, sleepSet)
		if err != nil || slept || d <= 0 {
			return next, err
		}
		if err := joinMemo(v, sleepSet, true); err != nil {
			return "", err
		}
		return "", Snooze(d)
	}
}
