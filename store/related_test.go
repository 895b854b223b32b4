package store

import (
	"testing"
	"time"

	"github.com/segnodev/segno/engine"
)

// waitingFor is the commit by which a run goes to wait.
func waitingFor(h engine.Head, signal string) *engine.Change {
	c := &engine.Change{Before: &h, After: h}
	c.After.Status, c.After.Held, c.After.Wake, c.After.Awaits = engine.Waiting, false, time.Time{}, signal
	return c
}

// hold takes a run that waits in the file.
func hold(t *testing.T, s *Store, h engine.Head) engine.Head {
	t.Helper()
	err := s.Update(ctx, func(tx *Tx) error {
		_, err := tx.Hold(&h, h.Created, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// What comes between a run's last look and the commit by which it goes to wait
// wakes it at once: nothing else would.
func TestWhatCameBeforeTheWaitEndsIt(t *testing.T) {
	for name, test := range map[string]struct {
		call   bool
		awaits string
		come   func(t *testing.T, s *Store, h engine.Head)
		woken  bool
	}{
		"an ended child": {true, "", func(t *testing.T, s *Store, h engine.Head) {
			child, err := s.Run(ctx, h.Child)
			if err == nil {
				err = s.Commit(ctx, ending(hold(t, s, child), engine.Completed))
			}
			if err != nil {
				t.Fatal(err)
			}
		}, true},
		"an open child": {true, "", func(*testing.T, *Store, engine.Head) {}, false},
		"a signal":      {false, "go", signalOf("go"), true},
		"another":       {false, "go", signalOf("stop"), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			h := addRun(t, s, "f")
			if test.call {
				c := waitingFor(h, "")
				c.Call = &engine.Head{
					Flow: "f", Status: engine.Pending, Version: 1, Nonce: "child", State: "a", Data: []byte(`{}`),
					Created: h.Created, Entered: h.Created, Wake: h.Created,
				}
				if err := s.Commit(ctx, c); err != nil {
					t.Fatal(err)
				}
				h = hold(t, s, c.After)
			}
			test.come(t, s, h)
			c := waitingFor(h, test.awaits)
			if err := s.Commit(ctx, c); err != nil {
				t.Fatal(err)
			}
			got, err := s.Run(ctx, h.Run)
			if err != nil {
				t.Fatal(err)
			}
			if got.Wake.IsZero() == test.woken || !got.Wake.Equal(c.After.Wake) {
				t.Errorf("wake: got = %v in the file and %v here, want one: %v", got.Wake, c.After.Wake, test.woken)
			}
		})
	}
}

func signalOf(name string) func(*testing.T, *Store, engine.Head) {
	return func(t *testing.T, s *Store, h engine.Head) {
		err := s.Update(ctx, func(tx *Tx) error {
			return tx.Signal(h.Run, Signal{Name: name, Payload: []byte(`{}`)}, h.Created)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
