package segnotest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/segnodev/segno"
)

// memory is a folder in memory, where there is one: syncs cost nothing there.
const memory = "/dev/shm"

// Run runs a workflow like a function: it starts a scheduler on a throwaway
// file, triggers one run with the data, waits for its end and returns it, with
// the *segno.RunError of one that did not complete. A workflow that cannot be
// registered is an error, too. Options.SmallWAL is set. At the end the file goes
// through Check. In a bubble of testing/synctest waits take no time; outside of
// one they take theirs.
func Run[S segno.State, D any](t testing.TB, w segno.Workflow[S, D], d D, o ...segno.Options) (segno.Run[S, D], error) {
	t.Helper()
	const flow = "run"
	opts := segno.Options{}
	if len(o) > 0 {
		opts = o[0]
	}
	opts.SmallWAL = true
	dir, err := os.MkdirTemp(memory, "segnotest")
	if err != nil {
		dir = t.TempDir()
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "segno.db")
	s := segno.New(path, opts)
	if err := s.Manual(flow, w); err != nil {
		return segno.Run[S, D]{}, err
	}
	ctx := context.Background()
	r, err := s.Start(ctx)
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	run, err := once(ctx, r, flow, w, d)
	if stopped := r.Stop(ctx); stopped != nil {
		t.Errorf("stopping: %v", stopped)
	}
	Check(t, path)
	return run, err
}

// once triggers one run and waits for it.
func once[S segno.State, D any](ctx context.Context, r *segno.RunningScheduler, flow string, w segno.Workflow[S, D], d D) (segno.Run[S, D], error) {
	b, err := segno.Bind(r, flow, w)
	if err != nil {
		return segno.Run[S, D]{}, err
	}
	id, err := b.Trigger(ctx, d)
	if err != nil {
		return segno.Run[S, D]{}, err
	}
	return b.Wait(ctx, id)
}
