package store

import (
	"context"
	"database/sql"
	"time"
)

// A Backfill is a range of slots that are to have runs after the fact.
type Backfill struct {
	ID          int64
	Flow        string
	Schedule    string // and the anchor: they say what the slots are
	Anchor      time.Time
	First, Last time.Time // the slots taken on
	Cursor      time.Time // no slot up to it needs a run any more
	Count, Runs int       // slots taken on, runs made
	At, Done    time.Time
}

const selectBackfill = `SELECT b.id, f.id, b.schedule, b.anchor, b.first, b.last, b.cursor, b.count, b.runs, b.at, b.done
FROM _segno_backfill b JOIN _segno_flow f ON f.flow = b.flow WHERE b.done IS NULL `

func scanBackfills(rows *sql.Rows, err error) (list []Backfill, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b Backfill
		err := rows.Scan(&b.ID, &b.Flow, &b.Schedule, at{&b.Anchor}, at{&b.First}, at{&b.Last}, at{&b.Cursor}, &b.Count, &b.Runs, at{&b.At}, at{&b.Done})
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, rows.Err()
}

// Backfills returns those that are not done, oldest first.
func (s *Reader) Backfills(ctx context.Context) ([]Backfill, error) {
	stmt, err := s.prepared(selectBackfill + "ORDER BY b.id")
	if err != nil {
		return nil, err
	}
	return scanBackfills(stmt.QueryContext(ctx))
}

// BackfillsOf returns those of a flow that are not done, as the transaction
// sees them.
func (tx *Tx) BackfillsOf(f *Flow) ([]Backfill, error) {
	list, err := scanBackfills(tx.rows(selectBackfill+"AND b.flow = ? ORDER BY b.id", f.num))
	return list, tx.note(err)
}

// AddBackfill takes a backfill on.
func (tx *Tx) AddBackfill(f *Flow, b Backfill) error {
	_, err := tx.do("INSERT INTO _segno_backfill (flow, schedule, anchor, first, last, cursor, count, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		f.num, b.Schedule, micros(b.Anchor), micros(b.First), micros(b.Last), micros(b.Cursor), b.Count, micros(b.At))
	return err
}

// MoveBackfill records how far a backfill has come.
func (tx *Tx) MoveBackfill(b *Backfill) error {
	_, err := tx.do("UPDATE _segno_backfill SET cursor = ?, runs = ?, done = ? WHERE id = ?", micros(b.Cursor), b.Runs, micros(b.Done), b.ID)
	return err
}

// SlotsRun returns the slots of a flow in [from, to] that have, or had, a run
// of their own, as microseconds. Those that were coalesced have none.
func (tx *Tx) SlotsRun(f *Flow, from, to time.Time) (map[int64]bool, error) {
	rows, err := tx.rows(`SELECT slot FROM _segno_run WHERE flow = ?1 AND slot BETWEEN ?2 AND ?3
UNION SELECT first FROM _segno_ledger WHERE flow = ?1 AND first BETWEEN ?2 AND ?3 AND outcome = 'fired'`, f.num, micros(from), micros(to))
	if err != nil {
		return nil, tx.note(err)
	}
	defer rows.Close()
	slots := map[int64]bool{}
	for rows.Next() {
		var slot int64
		if err := rows.Scan(&slot); err != nil {
			return nil, err
		}
		slots[slot] = true
	}
	return slots, tx.note(rows.Err())
}

// BackfillOf returns the backfill that made the run of a slot, 0 if none did.
func (tx *Tx) BackfillOf(f *Flow, slot time.Time) (id int64, err error) {
	row := tx.row("SELECT coalesce(max(backfill), 0) FROM _segno_run WHERE flow = ? AND slot = ?", f.num, micros(slot))
	return id, tx.note(row.Scan(&id))
}
