package store

import (
	"context"
	"time"
)

// Aged is a row of the slot ledger or of the events that is old.
type Aged struct {
	ID   int64
	Old  bool
	Goes bool // and may be pruned
}

// A row of the ledger stays as long as its run does, and so does the last of
// each flow, which may become longer. The row with the highest id always stays.
const selectAgedSlots = `SELECT l.id, l.at < ?2, l.at < ?2 AND l.id < (SELECT max(id) FROM _segno_ledger)
	AND NOT EXISTS (SELECT 1 FROM _segno_run r WHERE r.run = l.run)
	AND EXISTS (SELECT 1 FROM _segno_ledger n WHERE n.flow = l.flow AND n.first > l.first)
FROM _segno_ledger l WHERE l.id > ?1 ORDER BY l.id LIMIT ?3`

// That a schedule was changed stays as long as slots of the one before.
const selectAgedEvents = `SELECT e.id, e.at < ?2, e.at < ?2 AND e.id < (SELECT max(id) FROM _segno_event)
	AND NOT (e.kind = 'schedule_changed' AND EXISTS (SELECT 1 FROM _segno_ledger l WHERE l.flow = e.flow AND l.first < e.at))
FROM _segno_event e WHERE e.id > ?1 ORDER BY e.id LIMIT ?3`

// AgedSlots returns rows of the slot ledger behind the given one, and says which
// are older than the time.
func (s *Reader) AgedSlots(ctx context.Context, after int64, before time.Time, limit int) ([]Aged, error) {
	return s.aged(ctx, selectAgedSlots, after, before, limit)
}

// AgedEvents is AgedSlots for the events.
func (s *Reader) AgedEvents(ctx context.Context, after int64, before time.Time, limit int) ([]Aged, error) {
	return s.aged(ctx, selectAgedEvents, after, before, limit)
}

func (s *Reader) aged(ctx context.Context, query string, after int64, before time.Time, limit int) (page []Aged, err error) {
	rows, err := s.query(ctx, query, after, micros(before), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var a Aged
		if err := rows.Scan(&a.ID, &a.Old, &a.Goes); err != nil {
			return nil, err
		}
		page = append(page, a)
	}
	return page, rows.Err()
}

// PruneSlots deletes rows of the slot ledger, and notes that it is not whole any
// more up to there.
func (tx *Tx) PruneSlots(ids []int64) error {
	_, err := tx.do(`UPDATE _segno_flow SET pruned = max(coalesce(pruned, 0), l.last)
FROM (SELECT flow, max(last) AS last FROM _segno_ledger WHERE id IN (SELECT value FROM json_each(?)) GROUP BY flow) l
WHERE l.flow = _segno_flow.flow`, list(ids))
	if err == nil {
		_, err = tx.do("DELETE FROM _segno_ledger WHERE id IN (SELECT value FROM json_each(?))", list(ids))
	}
	return err
}

// PruneEvents deletes events.
func (tx *Tx) PruneEvents(ids []int64) error {
	_, err := tx.do("DELETE FROM _segno_event WHERE id IN (SELECT value FROM json_each(?))", list(ids))
	return err
}
