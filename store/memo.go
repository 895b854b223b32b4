package store

import (
	"context"

	"github.com/segnodev/segno/engine"
)

// sweepPage is how many memos are deleted at a time.
const sweepPage = 500

const (
	putMemoSQL = `INSERT INTO _segno_memo (run, visit, key, value) VALUES (?, ?, ?, ?)
ON CONFLICT (run, visit, key) DO UPDATE SET value = excluded.value`

	dropMemosSQL = `DELETE FROM _segno_memo WHERE (run, visit, key) IN
	(SELECT run, visit, key FROM _segno_memo WHERE run = ? AND visit <= ? LIMIT ?)`
)

func (tx *Tx) putMemos(run int64, visit int, memos map[string][]byte) error {
	for key, value := range memos {
		if _, err := tx.exec(tx.w.putMemo, run, visit, key, string(value)); err != nil {
			return err
		}
	}
	return nil
}

// Save makes memos of the head's visit durable: see engine.Journal.
func (s *Store) Save(ctx context.Context, h *engine.Head, memos map[string][]byte, onCommit []func(engine.Tx) error) error {
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.owned(h); err != nil {
			return err
		}
		if err := tx.putMemos(h.Run, h.Visit, memos); err != nil {
			return err
		}
		return tx.join(onCommit, h)
	})
}

// owned fails if the head at hand is not the run's any more: another attempt
// has the visit.
func (tx *Tx) owned(h *engine.Head) error {
	var seq int64
	if err := tx.row(seqSQL, h.Run).Scan(&seq); err != nil {
		return tx.note(err)
	}
	if seq != h.Seq {
		return engine.ErrEnded
	}
	return nil
}

// Memos returns the memos of the head's visit.
func (s *Store) Memos(ctx context.Context, h *engine.Head) (map[string][]byte, error) {
	rows, err := s.query(ctx, "SELECT key, value FROM _segno_memo WHERE run = ? AND visit = ?", h.Run, h.Visit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	memos := map[string][]byte{}
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return nil, err
		}
		memos[key] = []byte(value)
	}
	return memos, rows.Err()
}

// A MemoVisit is a visit that has memos. They are of no use once it is closed.
type MemoVisit struct {
	Run    int64
	Visit  int
	Closed bool
}

const visitClosed = "(r.run IS NULL OR r.ended IS NOT NULL OR m.visit < r.visit)"

// MemoVisits returns visits with memos, in order, behind a given one.
func (s *Reader) MemoVisits(ctx context.Context, after MemoVisit, limit int) (visits []MemoVisit, err error) {
	const query = "SELECT DISTINCT m.run, m.visit, " + visitClosed + ` FROM _segno_memo m LEFT JOIN _segno_run r USING (run)
WHERE (m.run, m.visit) > (?, ?) ORDER BY m.run, m.visit LIMIT ?`
	rows, err := s.query(ctx, query, after.Run, after.Visit, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v MemoVisit
		if err := rows.Scan(&v.Run, &v.Visit, &v.Closed); err != nil {
			return nil, err
		}
		visits = append(visits, v)
	}
	return visits, rows.Err()
}

// DropMemos deletes a page of the memos of a visit that is closed, and reports
// whether there may be more. A crash or a very large visit leaves some behind.
func (tx *Tx) DropMemos(v MemoVisit) (more bool, err error) {
	n, err := tx.do(`DELETE FROM _segno_memo WHERE (run, visit, key) IN
	(SELECT m.run, m.visit, m.key FROM _segno_memo m LEFT JOIN _segno_run r USING (run)
	WHERE m.run = ? AND m.visit = ? AND `+visitClosed+" LIMIT ?)", v.Run, v.Visit, sweepPage)
	return n == sweepPage, err
}
