package store

import (
	"context"
	"database/sql"
	"errors"
	"math"

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

// memosAtOnce bounds the bytes of memos that are read for several runs at once.
const memosAtOnce = 256 << 10

// MemosOf returns the memos of the heads' visits, by run, read at once. A run
// that is missing was not read, or not to its end: there were too many.
func (s *Reader) MemosOf(ctx context.Context, heads []engine.Head) (map[int64]map[string][]byte, error) {
	const query = `SELECT e.value, m.visit, m.key, m.value FROM json_each(?) e LEFT JOIN _segno_memo m ON m.run = e.value ORDER BY e.id`
	runs, visits := make([]int64, len(heads)), make(map[int64]int64, len(heads))
	for i := range heads {
		runs[i], visits[heads[i].Run] = heads[i].Run, int64(heads[i].Visit)
	}
	rows, err := s.query(ctx, query, list(runs))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	memos := make(map[int64]map[string][]byte, len(heads))
	for size := 0; rows.Next(); {
		var run, visit int64
		var key string
		var value []byte
		if err := rows.Scan(&run, num{&visit}, str{&key}, blob{&value}); err != nil {
			return nil, err
		}
		if size += len(key) + len(value); size > memosAtOnce {
			delete(memos, run) // there may be more of it
			break
		}
		if memos[run] == nil {
			memos[run] = map[string][]byte{}
		}
		if visit == visits[run] { // not one that a closed visit has left
			memos[run][key] = value
		}
	}
	return memos, rows.Err()
}

// A MemoVisit is a visit that has memos.
type MemoVisit struct {
	Run   int64
	Visit int
}

// The memos of a closed visit are of no use.
const visitClosed = "(r.run IS NULL OR r.ended IS NOT NULL OR m.visit < r.visit)"

// ClosedVisits returns closed visits that still have memos, among the next so
// many memos behind a run. It has looked at all of them up to the run it returns,
// the largest number there is if there are no more.
func (s *Reader) ClosedVisits(ctx context.Context, after int64, limit int) (visits []MemoVisit, upto int64, err error) {
	const end = "SELECT run FROM _segno_memo WHERE run > ? ORDER BY run, visit, key LIMIT 1 OFFSET ?"
	err = s.queryRow(ctx, end, after, limit-1).Scan(&upto)
	if errors.Is(err, sql.ErrNoRows) {
		upto, err = math.MaxInt64, nil
	}
	if err != nil {
		return nil, 0, err
	}
	const query = "SELECT DISTINCT m.run, m.visit FROM _segno_memo m LEFT JOIN _segno_run r USING (run) WHERE m.run > ? AND m.run <= ? AND " +
		visitClosed + " ORDER BY m.run, m.visit"
	rows, err := s.query(ctx, query, after, upto)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var v MemoVisit
		if err := rows.Scan(&v.Run, &v.Visit); err != nil {
			return nil, 0, err
		}
		visits = append(visits, v)
	}
	return visits, upto, rows.Err()
}

// DropMemos deletes a page of the memos of a visit that is closed, and reports
// whether there may be more. A crash or a very large visit leaves some behind.
func (tx *Tx) DropMemos(v MemoVisit) (more bool, err error) {
	n, err := tx.do(`DELETE FROM _segno_memo WHERE (run, visit, key) IN
	(SELECT m.run, m.visit, m.key FROM _segno_memo m LEFT JOIN _segno_run r USING (run)
	WHERE m.run = ? AND m.visit = ? AND `+visitClosed+" LIMIT ?)", v.Run, v.Visit, sweepPage)
	return n == sweepPage, err
}
