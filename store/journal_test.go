package store

import (
	"errors"
	"testing"

	"github.com/segnodev/segno/engine"
)

// Of a request that fails nothing is in the journal, though its neighbours' entries
// are written together with what would have been its own.
func TestAFailedRequestLeavesNoEntry(t *testing.T) {
	s := fresh(t)
	h := addRun(t, s, "f")
	broken := errors.New("broken")
	err := s.Update(ctx, func(tx *Tx) error {
		again := h
		if err := tx.Insert(&again); err != nil {
			return err
		}
		return broken
	})
	says(t, err, broken)
	refused := transition(h, "b")
	refused.OnCommit = []func(engine.Tx) error{func(engine.Tx) error { return broken }}
	says(t, s.Commit(ctx, refused), broken)
	if err := s.Commit(ctx, transition(h, "c")); err != nil {
		t.Fatal(err)
	}
	if got, want := one(t, s.DB(), "SELECT group_concat(run || state, ' ') FROM _segno_journal ORDER BY id"), "1a 1c"; got != want {
		t.Errorf("entries: got = %s, want %s", got, want)
	}
}
