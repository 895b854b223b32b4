package segnotest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/segnodev/segno"
)

// Open starts a scheduler on a new file in a temporary folder. At the end of
// the test it is stopped, and the file goes through Check. Options.SmallWAL is
// set. In a bubble of testing/synctest the end is that of the bubble.
func Open(t testing.TB, o segno.Options, register func(s *segno.Scheduler) error) *segno.RunningScheduler {
	t.Helper()
	return OpenFile(t, filepath.Join(t.TempDir(), "segno.db"), o, register)
}

// OpenFile is Open on the file at path: one that a scheduler before has left,
// say. A nil register registers nothing.
func OpenFile(t testing.TB, path string, o segno.Options, register func(s *segno.Scheduler) error) *segno.RunningScheduler {
	t.Helper()
	o.SmallWAL = true
	s := segno.New(path, o)
	if register != nil {
		if err := register(s); err != nil {
			t.Fatalf("registering: %v", err)
		}
	}
	r, err := s.Start(context.Background())
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Errorf("stopping: %v", err)
		}
		Check(t, path)
	})
	return r
}
