package store

import (
	"database/sql"
	"errors"
	"time"
)

// Slots is a stretch of slots of one flow with one outcome.
type Slots struct {
	First, Last time.Time
	Count       int
	Outcome     string // fired, coalesced, skipped
	Reason      string // of a skip
	Note        string // of whoever asked for it
	Run         int64  // that fired or swallowed them
}

// Ledger records what became of a stretch of slots. A stretch that goes on
// where the flow's last row ended, with the same outcome, makes that row longer;
// one that fired stands by itself.
func (tx *Tx) Ledger(f *Flow, s Slots, now time.Time) error {
	if s.Outcome != "fired" {
		if n, err := tx.prolong(f, s, now); err != nil || n == 1 {
			return err
		}
	}
	_, err := tx.do(`INSERT INTO _segno_ledger (flow, first, last, count, outcome, reason, run, note, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (flow, first) DO NOTHING`, // decided before, by a clock that went wrong
		f.num, micros(s.First), micros(s.Last), s.Count, s.Outcome, text(s.Reason), number(s.Run), text(s.Note), micros(now))
	return err
}

// prolong makes the flow's last row longer, if the stretch goes on there.
func (tx *Tx) prolong(f *Flow, s Slots, now time.Time) (int64, error) {
	return tx.do(`UPDATE _segno_ledger SET last = ?, count = count + ?, at = ?
WHERE id = (SELECT id FROM _segno_ledger WHERE flow = ? ORDER BY first DESC LIMIT 1)
	AND last < ? AND outcome = ? AND reason IS ? AND run IS ? AND note IS ?`,
		micros(s.Last), s.Count, micros(now), f.num, micros(s.First), s.Outcome, text(s.Reason), number(s.Run), text(s.Note))
}

// Undecide takes back what became of slots after now, unless they fired: a
// wrong clock said so. count returns the last slot from first up to now, and how
// many there are; none: the stretch stays as it is.
func (tx *Tx) Undecide(f *Flow, now time.Time, count func(first time.Time) (last time.Time, n int)) error {
	if _, err := tx.do("DELETE FROM _segno_ledger WHERE flow = ? AND first > ? AND outcome <> 'fired'", f.num, micros(now)); err != nil {
		return err
	}
	const across = "SELECT first FROM _segno_ledger WHERE flow = ? AND first <= ? AND last > ? ORDER BY first DESC LIMIT 1"
	var first time.Time
	err := tx.row(across, f.num, micros(now), micros(now)).Scan(at{&first})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return tx.note(err)
	}
	last, n := count(first)
	if n == 0 {
		return nil
	}
	_, err = tx.do("UPDATE _segno_ledger SET last = ?, count = ? WHERE flow = ? AND first = ?", micros(last), n, f.num, micros(first))
	return err
}

// Event records something that happened to the scheduler, or to one of its flows.
func (tx *Tx) Event(kind, flow, note string, now time.Time) error {
	var num int64
	if f := tx.w.byID[flow]; f != nil {
		num = f.num
	}
	_, err := tx.do("INSERT INTO _segno_event (at, kind, flow, note) VALUES (?, ?, ?, ?)", micros(now), kind, number(num), text(note))
	return err
}

// Events counts the events of a kind of a flow.
func (tx *Tx) Events(kind, flow string) (n int, err error) {
	f := tx.w.byID[flow]
	if f == nil {
		return 0, ErrNotFound
	}
	row := tx.row("SELECT count(*) FROM _segno_event WHERE kind = ? AND flow = ?", kind, f.num)
	return n, tx.note(row.Scan(&n))
}

// Fired reports whether a slot of the flow has its run already.
func (tx *Tx) Fired(f *Flow, slot time.Time) (yes bool, err error) {
	row := tx.row("SELECT EXISTS (SELECT 1 FROM _segno_run WHERE flow = ? AND slot = ?)", f.num, micros(slot))
	return yes, tx.note(row.Scan(&yes))
}
