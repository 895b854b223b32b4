package engine

import (
	"context"
	"slices"
	"time"
)

// A Machine is a workflow with its types erased.
type Machine struct {
	Version     int
	Initial     string
	Timeout     time.Duration // whole run; 0: none
	UndoTimeout time.Duration // whole rollback; 0: none
	KeepData    bool          // every entry carries the data
	Steps       map[string]*Step
	// Migrate translates a run of another version; nil: such a run is stuck.
	Migrate func(from int, state string, data []byte) (string, []byte, error)
}

// A Step is one state's code with its types erased.
type Step struct {
	Do            func(ctx context.Context, data []byte) (next string, out []byte, err error)
	Undo          func(ctx context.Context, data []byte) error
	Next          []string
	Retry         Retry
	Timeout       time.Duration
	UndoRetry     Retry
	UndoUncertain bool
	Final         bool
}

// undoable reports whether any step of the machine has an Undo: only then must
// the journal keep the data between the steps.
func (m *Machine) undoable() bool {
	for _, s := range m.Steps {
		if s.Undo != nil {
			return true
		}
	}
	return false
}

// allows reports whether the step may go to next.
func (s *Step) allows(next string) bool {
	return len(s.Next) == 0 || slices.Contains(s.Next, next)
}
