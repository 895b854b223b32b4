package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/segnodev/segno/engine"
)

// past returns a wake-up time that has come.
func past() time.Time { return time.UnixMicro(1).UTC() }

// related does what a change means for other runs, and what others have done
// meanwhile for a run that goes to wait.
func (tx *Tx) related(c *engine.Change, child int64) error {
	h := &c.After
	if c.Call != nil {
		if err := tx.call(c); err != nil {
			return err
		}
	}
	if c.Recall {
		if err := tx.SetCancel(child, past()); err != nil {
			return err
		}
	}
	switch {
	case h.Status.Ended() && h.Parent != 0:
		_, err := tx.do("UPDATE _segno_run SET wake = ? WHERE run = ? AND status = 'waiting' AND child = ?", micros(h.Ended), h.Parent, h.Run)
		return err
	case h.Status == engine.Waiting && c.Call == nil:
		return tx.waits(c, child)
	}
	return nil
}

// call creates the run that a change calls.
func (tx *Tx) call(c *engine.Change) error {
	called := *c.Call
	called.Parent, called.ParentVisit, called.Depth = c.After.Run, c.After.Visit, c.After.Depth+1
	f := tx.Flow(called.Flow)
	if f == nil {
		return ErrNotFound
	}
	f.Runs++
	return tx.Insert(&called)
}

// waits wakes a run that goes to wait for what has come already: it looked
// before this commit, and nothing else would wake it.
func (tx *Tx) waits(c *engine.Change, child int64) error {
	h := &c.After
	n, err := tx.do(`UPDATE _segno_run SET wake = ?1 WHERE run = ?2 AND (
	EXISTS (SELECT 1 FROM _segno_signal WHERE run = ?2 AND name = ?3 AND taken IS NULL)
	OR EXISTS (SELECT 1 FROM _segno_run WHERE run = ?4 AND ended IS NOT NULL))`, micros(past()), h.Run, h.Awaits, child)
	if err == nil && n > 0 {
		tx.After(func() { h.Wake = past() })
	}
	return err
}

// A Signal is a message to a run.
type Signal struct {
	Name    string
	Message string // the sender's id; "": never a duplicate
	Payload []byte
}

// Known reports whether a run has had the message before.
func (tx *Tx) Known(run int64, message string) (known bool, err error) {
	if message == "" {
		return false, nil
	}
	row := tx.row("SELECT EXISTS (SELECT 1 FROM _segno_signal WHERE run = ? AND message = ?)", run, message)
	return known, tx.note(row.Scan(&known))
}

// Signal queues a message for a run, and wakes the run if it waits for it.
func (tx *Tx) Signal(run int64, s Signal, now time.Time) error {
	_, err := tx.do("INSERT INTO _segno_signal (run, name, message, payload, at) VALUES (?, ?, ?, ?, ?)",
		run, s.Name, text(s.Message), string(s.Payload), micros(now))
	if err == nil {
		_, err = tx.do("UPDATE _segno_run SET wake = ? WHERE run = ? AND status = 'waiting' AND awaits = ?", micros(now), run, s.Name)
	}
	return err
}

// Take gives the head's visit the oldest signal of a name: see engine.Journal.
func (s *Store) Take(ctx context.Context, h *engine.Head, name, memo string) (payload []byte, found bool, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		payload, found = nil, false
		if err := tx.owned(h); err != nil {
			return err
		}
		var id int64
		row := tx.row(`SELECT id, payload FROM _segno_signal
WHERE run = ? AND name = ? AND taken IS NULL ORDER BY id LIMIT 1`, h.Run, name)
		switch err := row.Scan(&id, blob{&payload}); {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil:
			return tx.note(err)
		}
		found = true
		if _, err := tx.do("UPDATE _segno_signal SET taken = ? WHERE id = ?", h.Visit, id); err != nil {
			return err
		}
		return tx.putMemos(h.Run, h.Visit, map[string][]byte{memo: payload})
	})
	return payload, found, err
}
