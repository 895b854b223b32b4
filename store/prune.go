package store

import (
	"context"
	"encoding/json"
	"time"
)

// PruneRows is how many rows a request for pruning touches, at most: others wait
// for it, and for the pages it writes.
const PruneRows = 100

// Keep says which runs that have ended are kept.
type Keep struct {
	Runs              int       // the newest of each flow
	Completed, Failed time.Time // those that ended since; zero: all. A cancelled one is as one completed
}

// Crowded is a flow that may have more runs than are kept in any case.
type Crowded struct{ Flow, Runs int64 }

const selectCrowded = "SELECT flow, runs FROM _segno_flow WHERE flow > ? AND runs > ? ORDER BY flow LIMIT ?"

// Crowded returns flows that have begun more than so many runs, in the order of
// their numbers, behind the given one.
func (s *Reader) Crowded(ctx context.Context, after int64, runs, limit int) (flows []Crowded, err error) {
	stmt, err := s.prepared(selectCrowded)
	if err == nil {
		err = stmt.SelectContext(ctx, &flows, after, runs, limit)
	}
	return flows, err
}

// A Surplus is a run that is not among the newest of its flow.
type Surplus struct {
	Run, Seq, Last int64
	Created        time.Time
	Extra          int  // memos and signals it has
	Goes           bool // it is to be pruned
}

// selectSurplus walks the runs of one flow from a position on, up to the newest
// that are kept. It reads no other run, and none that is kept for being new.
const selectSurplus = `SELECT r.run, r.seq, r.last, r.created,
	(SELECT count(*) FROM _segno_memo m WHERE m.run = r.run) + (SELECT count(*) FROM _segno_signal g WHERE g.run = r.run),
	coalesce(r.ended < CASE r.status WHEN 'completed' THEN ?5 WHEN 'cancelled' THEN ?5 WHEN 'failed' THEN ?6
		WHEN 'undo_failed' THEN CASE WHEN r.note IS NOT NULL THEN ?6 END END, 0)
	AND NOT EXISTS (SELECT 1 FROM _segno_run p WHERE p.run = r.parent AND p.ended IS NULL)
FROM _segno_run r INDEXED BY _segno_run_flow
WHERE r.flow = ?1 AND r.run > ?2
	AND r.run <= (SELECT n.run FROM _segno_run n INDEXED BY _segno_run_flow WHERE n.flow = ?1 ORDER BY n.run DESC LIMIT 1 OFFSET ?3)
ORDER BY r.run LIMIT ?4`

// Surplus returns runs of a flow that are not among its newest, oldest first,
// behind the given one, and says which of them go.
func (s *Reader) Surplus(ctx context.Context, flow, after int64, k Keep, limit int) (runs []Surplus, err error) {
	rows, err := s.query(ctx, selectSurplus, flow, after, k.Runs, limit, micros(k.Completed), micros(k.Failed))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Surplus
		if err := rows.Scan(&r.Run, &r.Seq, &r.Last, at{&r.Created}, &r.Extra, &r.Goes); err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, rows.Err()
}

// Doomed is a run to be pruned, with all the entries it has.
type Doomed struct {
	Run, Seq int64
	Entries  []Link
}

// bulk is the data that takes about as long to delete as a row does.
const bulk = 64 << 10

// Rows returns how many rows of usual size the run and its entries are.
func (d Doomed) Rows() int {
	n := 1 + len(d.Entries)
	for _, e := range d.Entries {
		n += int(e.Size / bulk)
	}
	return n
}

// selectStanding tells which of some runs are still as they were read. The one
// with the newest entry of all is spared: its id must not be handed out again.
const selectStanding = `SELECT r.run FROM json_each(?) e CROSS JOIN _segno_run r ON r.run = e.value ->> 0
WHERE r.seq = e.value ->> 1 AND r.ended IS NOT NULL AND r.last < (SELECT max(id) FROM _segno_journal)
	AND NOT EXISTS (SELECT 1 FROM _segno_run p WHERE p.run = r.parent AND p.ended IS NULL)`

// Prune deletes runs, each with all there is of it. One that has changed since
// it was read stays.
func (tx *Tx) Prune(runs []Doomed) error {
	standing, err := tx.standing(runs)
	if err != nil {
		return err
	}
	var ids, entries []int64
	for _, r := range runs {
		if !standing[r.Run] {
			continue
		}
		ids = append(ids, r.Run)
		for _, e := range r.Entries {
			entries = append(entries, e.ID)
		}
	}
	for _, d := range []struct {
		query string
		ids   []int64
	}{
		{"DELETE FROM _segno_journal WHERE id IN (SELECT value FROM json_each(?))", entries},
		{"DELETE FROM _segno_memo WHERE run IN (SELECT value FROM json_each(?))", ids},
		{"DELETE FROM _segno_signal WHERE run IN (SELECT value FROM json_each(?))", ids},
		{"DELETE FROM _segno_run WHERE run IN (SELECT value FROM json_each(?))", ids},
	} {
		if _, err := tx.do(d.query, list(d.ids)); err != nil {
			return err
		}
	}
	return tx.keepHigh()
}

// standing returns those of the runs that may be pruned still.
func (tx *Tx) standing(runs []Doomed) (map[int64]bool, error) {
	read := make([][2]int64, len(runs))
	for i, r := range runs {
		read[i] = [2]int64{r.Run, r.Seq}
	}
	rows, err := tx.rows(selectStanding, list(read))
	if err != nil {
		return nil, tx.note(err)
	}
	defer rows.Close()
	standing := map[int64]bool{}
	for rows.Next() {
		var run int64
		if err := rows.Scan(&run); err != nil {
			return nil, err
		}
		standing[run] = true
	}
	return standing, tx.note(rows.Err())
}

// Strip deletes memos and signals of a run to be pruned that has more of them
// than fit in one request, and reports how many it was.
func (tx *Tx) Strip(run Doomed) (n int64, err error) {
	standing, err := tx.standing([]Doomed{run})
	if err != nil || !standing[run.Run] {
		return 0, err
	}
	n, err = tx.exec(tx.w.dropMemos, run.Run, int64(1)<<62, PruneRows)
	if err != nil || n == PruneRows {
		return n, err
	}
	more, err := tx.do("DELETE FROM _segno_signal WHERE id IN (SELECT id FROM _segno_signal WHERE run = ? LIMIT ?)", run.Run, PruneRows-n)
	return n + more, err
}

// keepHigh keeps the high-water marks of the ids.
func (tx *Tx) keepHigh() error {
	_, err := tx.do("UPDATE _segno_owner SET run_high = ?, journal_high = ?", tx.w.nextRun-1, tx.w.nextEntry-1)
	return err
}

// list is a list as SQL's json_each takes it.
func list[T any](items []T) string {
	if len(items) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(items) // numbers only
	return string(b)
}
