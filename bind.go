package segno

import (
	"context"
	"fmt"
)

// A BoundFlow is a flow of a running scheduler with its types: wrong data does
// not compile.
type BoundFlow[S State, D any] struct {
	r  *RunningScheduler
	id string
}

// Bind returns the typed handle of a flow. It returns ErrNotFound for an
// unknown id, and ErrConfig if the flow was registered with another workflow:
// other Go types, version or state names. An empty Workflow[S, D]{} checks the
// types only.
func Bind[S State, D any](r *RunningScheduler, id string, w Workflow[S, D]) (*BoundFlow[S, D], error) {
	f, err := r.flow(id)
	if err != nil {
		return nil, err
	}
	if diff := f.def.differs(w.shape()); diff != "" {
		return nil, fmt.Errorf("flow %q: %w: it was registered with another workflow: %s", id, ErrConfig, diff)
	}
	return &BoundFlow[S, D]{r: r, id: id}, nil
}

// Trigger starts a run with the given data: see RunningScheduler.Trigger, whose
// other options are taken from t.
func (b *BoundFlow[S, D]) Trigger(ctx context.Context, d D, t ...Trigger) (RunID, error) {
	var tr Trigger
	if len(t) > 0 {
		tr = t[0]
	}
	tr.Input = d
	return b.r.Trigger(ctx, b.id, tr)
}

// Wait waits until a run has ended: see RunningScheduler.WaitRun.
func (b *BoundFlow[S, D]) Wait(ctx context.Context, id RunID) (Run[S, D], error) {
	info, err := b.r.WaitRun(ctx, id)
	return b.typed(info, err)
}

// Get returns a run as it stands.
func (b *BoundFlow[S, D]) Get(ctx context.Context, id RunID) (Run[S, D], error) {
	info, err := b.r.Run(ctx, id)
	return b.typed(info, err)
}

// typed gives a run its types back. The error of the run comes first.
func (b *BoundFlow[S, D]) typed(info RunInfo, err error) (Run[S, D], error) {
	if info.ID == 0 {
		return Run[S, D]{}, err
	}
	if info.Flow != b.id {
		return Run[S, D]{RunInfo: info}, fmt.Errorf("run %d: %w: it is a run of flow %q, not %q", info.ID, ErrConfig, info.Flow, b.id)
	}
	run, failed := typedRun[S, D](info)
	return run, errorOr(err, failed)
}

// typedRun decodes what is known of a run.
func typedRun[S State, D any](info RunInfo) (Run[S, D], error) {
	d, err := decode[D](info.Data)
	return Run[S, D]{RunInfo: info, State: S(info.State), Data: d}, err
}
