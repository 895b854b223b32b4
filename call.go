package segno

import (
	"context"
	"fmt"

	"github.com/segnodev/segno/engine"
)

// maxDepth bounds how deep runs may call each other.
const maxDepth = 32

// Call runs another registered flow as a child and waits for its end, without a
// goroutine. The child starts with what in returns; it is created by the commit
// that lets the parent wait, so there is exactly one for each visit. When it has
// ended, however it has, then is called with it. Of the child's flow only its
// workflow matters: overlap, pause, backoff and trip neither refuse nor delay
// it, and its end does not count for the flow's streak.
//
// A cancel or timeout of the parent, and the end of Step.Timeout, which bounds
// the visit, cancel the child; the parent waits until it has rolled back. A
// child that ended in time wins, even if nobody looked until later. The flow
// must be registered with the given workflow (Go types, version, state names),
// else the visit fails with ErrConfig or ErrNotFound. An empty Workflow[CS, C]{}
// checks the types only: needed where a workflow calls itself. Runs call each
// other 32 deep at most.
func Call[S State, D any, CS State, C any](flow string, child Workflow[CS, C], in func(D) C,
	then func(context.Context, *D, Run[CS, C]) (S, error)) DoFunc[S, D] {
	shape := child.shape()
	return func(ctx context.Context, d *D) (S, error) {
		v, r, err := visitFrom(ctx)
		if err != nil {
			return "", err
		}
		h, called, err := v.Called(ctx)
		switch {
		case err != nil:
			return "", err
		case called && h.Status.Ended():
			run, err := typedRun[CS, C](runInfo(&h))
			if err != nil {
				return "", Permanent(err)
			}
			return then(ctx, d, run)
		}
		if err := v.OwnTimeout(); err != nil {
			return "", err
		}
		if called {
			return "", &engine.Steer{Snooze: true, Keep: true, Called: true}
		}
		c, err := r.child(v, flow, shape, in(*d))
		if err != nil {
			return "", Permanent(fmt.Errorf("calling flow %q: %w", flow, err))
		}
		return "", &engine.Steer{Snooze: true, Keep: true, Call: c}
	}
}

// child makes the head of a run to be called.
func (r *RunningScheduler) child(v *engine.Visit, id string, shape *definition, input any) (*engine.Head, error) {
	f, err := r.flow(id)
	if err != nil {
		return nil, err
	}
	if diff := f.def.differs(shape); diff != "" {
		return nil, fmt.Errorf("%w: it was registered with another workflow: %s", ErrConfig, diff)
	}
	if v.Depth() >= maxDepth {
		return nil, fmt.Errorf("%w: runs call each other more than %d deep", ErrConfig, maxDepth)
	}
	data, err := f.def.encode(input)
	if err == nil && len(data) > r.opts.MaxData {
		err = fmt.Errorf("%w: the input has %d bytes, Options.MaxData is %d", ErrConfig, len(data), r.opts.MaxData)
	}
	if err != nil {
		return nil, err
	}
	h := f.head(data, r.now())
	return &h, nil
}
