package store

import (
	"testing"

	"github.com/segnodev/segno/engine"
)

// Of two attempts at one visit the first to commit has it. The second leaves
// nothing, whatever it wanted to write.
func TestOfTwoTransitionsOneIsCommitted(t *testing.T) {
	retry := func(h engine.Head, _ string) *engine.Change {
		c := transition(h, h.State)
		c.After.Visit, c.After.Attempt = h.Visit, h.Attempt+1
		c.Entries[0].Kind, c.Entries[0].Visit, c.Entries[0].Attempt = engine.KindRetry, h.Visit, h.Attempt
		return c
	}
	end := func(h engine.Head, _ string) *engine.Change { return ending(h, engine.Completed) }
	for name, second := range map[string]func(engine.Head, string) *engine.Change{
		"into a state": transition, "to the end": end, "into another attempt": retry,
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			h := addRun(t, s, "f")
			if err := s.Commit(ctx, transition(h, "b")); err != nil {
				t.Fatal(err)
			}
			late := second(h, "c")
			late.Memos = map[string][]byte{"late": []byte("1")}
			says(t, s.Commit(ctx, late), ErrConflict)
			held, err := s.Run(ctx, h.Run)
			if err != nil {
				t.Fatal(err)
			}
			if held.Seq != h.Seq+1 || held.State != "b" || held.Status != engine.Running {
				t.Errorf("run: got = %s in %s, seq %d, want what the first has left", held.Status, held.State, held.Seq)
			}
			if got := one(t, s.DB(), "SELECT group_concat(state, ' ') || (SELECT count(*) FROM _segno_memo) FROM _segno_journal"); got != "a b0" {
				t.Errorf("entries, and memos: got = %s, want a b0", got)
			}
		})
	}
}

// A run that waits in the file is taken once.
func TestARunIsHeldOnce(t *testing.T) {
	s := fresh(t)
	h := addRun(t, s, "f")
	c := transition(h, "b")
	c.After.Status, c.After.Held, c.After.Wake = engine.Parked, false, h.Created
	c.After.Due = h.Created
	if err := s.Commit(ctx, c); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		h := c.After
		var got bool
		err := s.Update(ctx, func(tx *Tx) (err error) {
			again := h
			got, err = tx.Hold(&again, h.Created, false)
			return err
		})
		if err != nil || got != want {
			t.Errorf("hold %d: got = %v, %v, want %v", i+1, got, err, want)
		}
	}
}
