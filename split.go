package segno

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/segnodev/segno/engine"
)

// JoinMode says when a Split has what it needs.
type JoinMode int

// The closed set of join modes. A split is over as soon as its outcome is
// decided, either way: the branches still in work are then cancelled, and those
// not begun are left out.
const (
	All            JoinMode = iota // every branch succeeds
	Any                            // one branch succeeds
	Quorum                         // Join.N branches succeed
	Percentage                     // the share Join.Percent of the branches succeeds, rounded up
	PartialResults                 // Join.N branches succeed, however many fail
	PartialTimeout                 // at Join.Timeout at least one branch has ended, well or not
)

// Join says when the branches of a Split are joined. The zero value waits for all.
type Join struct {
	Mode    JoinMode
	N       int     // of Quorum and PartialResults
	Percent float64 // of Percentage, in (0, 1]
	// Timeout bounds the time from the visit's first branch to the join; it runs
	// on while the program is down. For all modes but PartialTimeout the split
	// fails when it has passed undecided. 0: none.
	Timeout time.Duration
	// Bulkhead is how many branches are in work at the same time; 0: no limit.
	Bulkhead int
	// Retry is the policy for each branch by itself.
	Retry Retry
}

const splitMemo = "segno.split"

// Split works on several branches side by side, each with a copy of the data of
// its own, and merges what they return, in the order of the branches. What
// becomes of a branch is made durable as it ends, with its OnCommit functions,
// so a crash repeats only the branches that were in work. merge is called if the
// join is satisfied, else the step fails with ErrJoin and the errors of the
// branches; Step.Retry and Step.Timeout are those of the whole split, which a
// retry begins anew. T must be a type that JSON can carry.
func Split[S State, D, T any](j Join, merge func(context.Context, *D, []Settled[T]) (S, error),
	branches ...func(context.Context, D) (T, error)) DoFunc[S, D] {
	fault := errorOr(j.validate(), jsonable(reflect.TypeFor[T]()))
	if merge == nil || slices.ContainsFunc(branches, func(b func(context.Context, D) (T, error)) bool { return b == nil }) {
		fault = errorOr(fault, fmt.Errorf("%w: merge or a branch of a Split is nil", ErrConfig))
	}
	return func(ctx context.Context, d *D) (S, error) {
		v, _, err := visitFrom(ctx)
		if err != nil || fault != nil {
			return "", errorOr(err, Permanent(fault))
		}
		data, err := json.Marshal(d)
		if err != nil {
			return "", Permanent(fmt.Errorf("encoding the data: %w", err))
		}
		round, err := roundOf(ctx, v, splitMemo, false)
		if err != nil {
			return "", err
		}
		f := &fan[T]{
			visit: v, memo: round.memo, limit: j.Bulkhead, retry: engine.Retry(j.Retry),
			decided: func(f *fan[T]) bool { return j.decided(f.tally()) != undecided },
			do: func(ctx context.Context, i int) (T, error) {
				own, err := decode[D](data)
				if err != nil {
					return *new(T), err
				}
				return branches[i](ctx, own)
			},
		}
		if f.until, err = joinDeadline(ctx, v, f.memo, j.Timeout); err != nil {
			return "", err
		}
		if err := f.run(ctx, len(branches)); err != nil {
			return "", err
		}
		settled, err := f.settled()
		if err != nil {
			return "", err
		}
		if err := failure(j, f.tally(), settled); err != nil {
			return "", err
		}
		next, err := merge(ctx, d, settled)
		return next, round.goOn(err)
	}
}

// joinDeadline returns when the round has to be joined. It is durable before
// the first branch begins.
func joinDeadline(ctx context.Context, v *engine.Visit, memo string, d time.Duration) (time.Time, error) {
	if d <= 0 {
		return time.Time{}, nil
	}
	until, found, err := LoadMemo[time.Time](ctx, memo)
	limit := v.Now().Add(d)
	if err != nil || found && !until.After(limit) {
		return until, err
	}
	until = limit // it is the first time, or the clock was stepped back
	raw, err := json.Marshal(until)
	if err == nil {
		_, part := v.Part(ctx, "", "", 1)
		err = part.Settle(memo, raw)
	}
	return until, err
}

// validate finds every fault of the join.
func (j Join) validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
		}
	}
	fault(j.Mode < All || j.Mode > PartialTimeout, "Join.Mode %d is none of the modes", j.Mode)
	fault(j.N < 0, "Join.N is %d", j.N)
	fault(j.Mode == Percentage && !(j.Percent > 0 && j.Percent <= 1), "Join.Percent is %v, not in (0, 1]", j.Percent)
	fault(j.Mode == PartialTimeout && j.Timeout == 0, "Join.Mode is PartialTimeout, and there is no Timeout")
	fault(j.Timeout < 0, "Join.Timeout is %v", j.Timeout)
	fault(j.Bulkhead < 0, "Join.Bulkhead is %d", j.Bulkhead)
	fault(j.Retry.impossible(), "Join.Retry is impossible: %+v", j.Retry)
	return errors.Join(errs...)
}

// tally counts what is known of the branches.
type tally struct {
	total, good, bad int
	late             bool
}

// tally counts the units.
func (f *fan[T]) tally() tally {
	t := tally{total: len(f.units), late: f.late}
	for i := range f.units {
		switch u := &f.units[i]; {
		case u.Done && u.Cause == "":
			t.good++
		case u.Done:
			t.bad++
		}
	}
	return t
}

// verdicts on a join.
type joinVerdict int

const (
	undecided joinVerdict = iota
	satisfied
	unsatisfied
)

// decided says what can be said of the join by now.
func (j Join) decided(t tally) joinVerdict {
	ended := t.good + t.bad
	if j.Mode == PartialTimeout {
		switch {
		case ended < t.total && !t.late:
			return undecided
		case ended > 0:
			return satisfied
		}
		return unsatisfied
	}
	need := j.need(t.total)
	switch {
	case t.good >= need:
		return satisfied
	case t.late || t.total-t.bad < need:
		return unsatisfied
	}
	return undecided
}

// need returns how many branches must succeed.
func (j Join) need(total int) int {
	switch j.Mode {
	case Any:
		return 1
	case Quorum, PartialResults:
		return j.N
	case Percentage:
		// 0.55 of 100 is 55, though not in floating point.
		return int(math.Ceil(float64(total) * j.Percent * (1 - 1e-12)))
	}
	return total
}

// shownErrors is how many errors of branches the text of a failed join has.
const shownErrors = 3

// failure returns why the branches cannot be joined, nil if they can.
func failure[T any](j Join, t tally, settled []Settled[T]) error {
	if j.decided(t) == satisfied {
		return nil
	}
	what := fmt.Sprintf("%d of %d branches succeeded, %d must", t.good, t.total, j.need(t.total))
	if j.Mode == PartialTimeout {
		what = fmt.Sprintf("none of %d branches ended", t.total)
	}
	if t.late {
		what += fmt.Sprintf(" within %v", j.Timeout)
	}
	shown, more := []string{}, 0
	for i := range settled {
		switch err := settled[i].Err; {
		case err == nil:
		case len(shown) < shownErrors:
			shown = append(shown, fmt.Sprintf("branch %d: %v", i, err))
		default:
			more++
		}
	}
	if more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	if len(shown) > 0 {
		what += ": " + strings.Join(shown, "; ")
	}
	if t.late {
		return fmt.Errorf("%w: %w: %s", ErrJoin, context.DeadlineExceeded, what)
	}
	return fmt.Errorf("%w: %s", ErrJoin, what)
}
