package store

import (
	"context"
	"time"
)

// A Skip is a slot to come that a person wants skipped.
type Skip struct {
	Slot time.Time
	Note string
}

// Skips returns the slots of a flow that are to be skipped, in their order.
func (s *Reader) Skips(ctx context.Context, flow string) (skips []Skip, err error) {
	rows, err := s.query(ctx, "SELECT slot, note FROM _segno_skip WHERE flow = (SELECT flow FROM _segno_flow WHERE id = ?) ORDER BY slot", flow)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k Skip
		if err := rows.Scan(at{&k.Slot}, str{&k.Note}); err != nil {
			return nil, err
		}
		skips = append(skips, k)
	}
	return skips, rows.Err()
}

// Skip notes that a slot is to be skipped; it may be asked for again, with
// another note.
func (tx *Tx) Skip(f *Flow, k Skip, now time.Time) error {
	_, err := tx.do(`INSERT INTO _segno_skip (flow, slot, note, at) VALUES (?, ?, ?, ?)
ON CONFLICT (flow, slot) DO UPDATE SET note = excluded.note`, f.num, micros(k.Slot), text(k.Note), micros(now))
	if err != nil {
		return err
	}
	return tx.countSkips(f)
}

// SkipFired notes that the slots after now that have fired are to be skipped:
// a cursor that is set back comes to them again.
func (tx *Tx) SkipFired(f *Flow, note string, now time.Time) error {
	_, err := tx.do(`INSERT INTO _segno_skip (flow, slot, note, at)
SELECT flow, first, ?, ? FROM _segno_ledger WHERE flow = ? AND first > ? AND outcome = 'fired' ON CONFLICT DO NOTHING`,
		text(note), micros(now), f.num, micros(now))
	if err != nil {
		return err
	}
	return tx.countSkips(f)
}

// Skipped forgets the slots to be skipped up to the given one: the ledger has
// what became of them.
func (tx *Tx) Skipped(f *Flow, upto time.Time) error {
	if _, err := tx.do("DELETE FROM _segno_skip WHERE flow = ? AND slot <= ?", f.num, micros(upto)); err != nil {
		return err
	}
	return tx.countSkips(f)
}

func (tx *Tx) countSkips(f *Flow) error {
	row := tx.row("SELECT count(*) FROM _segno_skip WHERE flow = ?", f.num)
	return tx.note(row.Scan(&f.Skips))
}

// SkipsOf returns the slots to be skipped as the transaction sees them.
func (tx *Tx) SkipsOf(f *Flow) (skips []Skip, err error) {
	if f.Skips == 0 {
		return nil, nil
	}
	rows, err := tx.rows("SELECT slot, note FROM _segno_skip WHERE flow = ? ORDER BY slot", f.num)
	if err != nil {
		return nil, tx.note(err)
	}
	defer rows.Close()
	for rows.Next() {
		var k Skip
		if err := rows.Scan(at{&k.Slot}, str{&k.Note}); err != nil {
			return nil, err
		}
		skips = append(skips, k)
	}
	return skips, tx.note(rows.Err())
}
