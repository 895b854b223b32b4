package segno

import (
	"context"
	"errors"
	"time"

	"github.com/segnodev/segno/engine"
)

// PollOptions are the options of Poll. The zero value fails at the first error.
type PollOptions struct {
	// Tolerate is the number of errors in a row that do not fail the poll: it asks
	// again 1 s later, or when a RetryAfter says. A Permanent error fails it anyway.
	Tolerate int
}

// pollMin is the shortest wait between two polls, so that none can spin.
const pollMin = time.Millisecond

// pollErrorWait is the wait after a tolerated error that asks for none of its own.
const pollErrorWait = time.Second

// Poll calls fn until it is ready: as long as fn returns again > 0 it is called
// again after that time (at least 1 ms). The number of errors in a row and the
// next poll's time are kept in the file; Step.Timeout bounds the whole visit.
// An error beyond PollOptions.Tolerate is the step's, and its Retry applies.
func Poll[S State, D any](fn func(context.Context, *D) (next S, again time.Duration, err error), o ...PollOptions) DoFunc[S, D] {
	var opts PollOptions
	if len(o) > 0 {
		opts = o[0]
	}
	return func(ctx context.Context, d *D) (S, error) {
		v := engine.VisitFrom(ctx)
		if v == nil {
			next, _, err := fn(ctx, d)
			return next, err
		}
		if err := v.OwnTimeout(); err != nil {
			return "", err
		}
		next, again, err := fn(ctx, d)
		if err == nil && again <= 0 {
			return next, nil
		}
		if err == nil {
			err = Snooze(max(again, pollMin))
		}
		if isSnooze(err) {
			return "", errorOr(forgive(ctx, v), err)
		}
		return "", tolerate(ctx, v, opts.Tolerate, err)
	}
}

const pollErrors = "segno.poll.errors"

// tolerate counts an error of a poll and turns it into a wait while the limit lasts.
func tolerate(ctx context.Context, v *engine.Visit, limit int, err error) error {
	var s *engine.Steer
	errors.As(err, &s)
	if limit <= 0 || ctx.Err() != nil || s != nil && s.Permanent {
		return err
	}
	n, _, failed := LoadMemo[int](ctx, pollErrors)
	if failed != nil || n >= limit {
		return errorOr(failed, err)
	}
	wait := pollErrorWait
	if s != nil && s.After > 0 {
		wait = max(s.After, pollMin)
	}
	return errorOr(joinMemo(v, pollErrors, n+1), Snooze(wait))
}

// forgive forgets earlier errors after a good poll.
func forgive(ctx context.Context, v *engine.Visit) error {
	n, _, err := LoadMemo[int](ctx, pollErrors)
	if err != nil || n == 0 {
		return err
	}
	return joinMemo(v, pollErrors, 0)
}

// errorOr returns the first error if there is one, else the second.
func errorOr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
