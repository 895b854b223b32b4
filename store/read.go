package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/segnodev/segno/engine"
)

// query runs a query that is prepared once per connection and kept.
func (s *Reader) query(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	stmt, err := s.prepared(query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryxContext(ctx, args...)
}

// queryRow is query for one row.
func (s *Reader) queryRow(ctx context.Context, query string, args ...any) *sqlx.Row {
	stmt, err := s.prepared(query)
	if err != nil {
		return s.reader.QueryRowxContext(ctx, query, args...) // says what is wrong
	}
	return stmt.QueryRowxContext(ctx, args...)
}

func (s *Reader) prepared(query string) (*sqlx.Stmt, error) {
	if stmt, ok := s.reads.Load(query); ok {
		return stmt.(*sqlx.Stmt), nil
	}
	stmt, err := s.reader.Preparex(query)
	if err != nil {
		return nil, err
	}
	if other, loaded := s.reads.LoadOrStore(query, stmt); loaded {
		_ = stmt.Close()
		return other.(*sqlx.Stmt), nil
	}
	return stmt, nil
}

// notFound turns "no rows" (or no error) into ErrNotFound.
func notFound(err error) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

const (
	selectHead = "SELECT r.flow, " + runColumns + ", f.id FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow "
	// selectOpen is selectHead for open runs, found by their status.
	selectOpen = "SELECT r.flow, " + runColumns + ", f.id FROM _segno_run r INDEXED BY _segno_run_open CROSS JOIN _segno_flow f ON f.flow = r.flow "
	// selectPicked is selectHead for runs of which a subquery has the numbers.
	selectPicked = "SELECT r.flow, " + runColumns + ", f.id FROM _segno_run r CROSS JOIN _segno_flow f ON f.flow = r.flow "
)

// heads reads heads with a prepared query.
func (s *Reader) heads(ctx context.Context, query string, args ...any) ([]engine.Head, error) {
	return scanHeads(s.query(ctx, query, args...))
}

func scanHeads(rows *sqlx.Rows, err error) (heads []engine.Head, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var h engine.Head
	into := append(headInto(new(int64), &h), &h.Flow)
	for rows.Next() {
		h = engine.Head{}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		heads = append(heads, h)
	}
	return heads, rows.Err()
}

// Run returns the head of a run, ErrNotFound if there is none.
func (s *Reader) Run(ctx context.Context, run int64) (h engine.Head, err error) {
	heads, err := s.heads(ctx, selectHead+"WHERE run = ?", run)
	if err != nil || len(heads) == 0 {
		return h, notFound(err)
	}
	return heads[0], nil
}

// Blocker returns the oldest open run of a flow, called and stuck ones aside if
// there is another: first of those that have begun.
func (s *Reader) Blocker(ctx context.Context, flow string) (h engine.Head, found bool, err error) {
	const query = selectOpen + `WHERE r.ended IS NULL AND r.flow = (SELECT flow FROM _segno_flow WHERE id = ?) AND r.parent IS NULL
ORDER BY r.status = 'stuck', r.status = 'pending', r.run LIMIT 1`
	heads, err := s.heads(ctx, query, flow)
	if err != nil || len(heads) == 0 {
		return h, false, err
	}
	return heads[0], true, nil
}

// FindRun returns the run of a flow that was triggered with the given key.
func (s *Reader) FindRun(ctx context.Context, flow, key string) (h engine.Head, err error) {
	heads, err := s.heads(ctx, selectHead+"WHERE f.id = ? AND r.key = ?", flow, key)
	if err != nil || len(heads) == 0 {
		return h, notFound(err)
	}
	return heads[0], nil
}

// Filter selects runs; zero fields select all.
type Filter struct {
	Flow     string
	Statuses []string
	Before   int64 // runs with a smaller id
	Limit    int
}

// Runs returns runs, newest first.
func (s *Reader) Runs(ctx context.Context, f Filter) ([]engine.Head, error) {
	var where []string
	var args []any
	if f.Flow != "" {
		where, args = append(where, "r.flow = (SELECT flow FROM _segno_flow WHERE id = ?)"), append(args, f.Flow)
	}
	if len(f.Statuses) > 0 {
		where = append(where, "r.status IN ("+marks(len(f.Statuses))+")")
		for _, status := range f.Statuses {
			args = append(args, status)
		}
	}
	if f.Before > 0 {
		where, args = append(where, "r.run < ?"), append(args, f.Before)
	}
	args = append(args, f.Limit)
	index, err := s.indexOf(ctx, f.Statuses)
	switch {
	case err != nil:
		return nil, err
	case index != "":
		return s.heads(ctx, selectPicked+"WHERE r.run IN (SELECT r.run FROM _segno_run r "+index+" AND "+
			strings.Join(where, " AND ")+newest+") ORDER BY r.run DESC", args...)
	case len(where) > 0:
		return s.heads(ctx, selectHead+"WHERE "+strings.Join(where, " AND ")+newest, args...)
	}
	return s.heads(ctx, selectHead+newest, args...)
}

const (
	newest = " ORDER BY r.run DESC LIMIT ?"
	inOpen = "INDEXED BY _segno_run_open WHERE r.ended IS NULL"
	inBad  = "INDEXED BY _segno_run_bad WHERE (r.status = 'failed' OR r.status = 'undo_failed' OR r.status = 'cancelled')"
)

// fewRuns is how many runs are looked at to find the newest; of more it is quicker
// to meet them on a walk over all runs.
const fewRuns = 1000

// indexOf returns the index by which the newest runs of some statuses are found
// sooner than on a walk over all runs, as a query names it; "" if there is none.
func (s *Reader) indexOf(ctx context.Context, statuses []string) (string, error) {
	index := indexed(statuses)
	if index == "" {
		return "", nil
	}
	args := make([]any, len(statuses), len(statuses)+1)
	for i, status := range statuses {
		args[i] = status
	}
	var n int
	err := s.queryRow(ctx, "SELECT count(*) FROM (SELECT 1 FROM _segno_run r "+index+" AND r.status IN ("+
		marks(len(statuses))+") LIMIT ?)", append(args, fewRuns+1)...).Scan(&n)
	if n > fewRuns {
		index = ""
	}
	return index, err
}

// indexed returns the index that has all runs of some statuses.
func indexed(statuses []string) string {
	open, bad := 0, 0
	for _, status := range statuses {
		switch status := engine.Status(status); {
		case !status.Ended():
			open++
		case status != engine.Completed:
			bad++
		}
	}
	switch len(statuses) {
	case 0:
		return ""
	case open:
		return inOpen
	case bad:
		return inBad
	}
	return ""
}

// Due returns runs whose time has come and that nobody holds, in the order of
// their time, at most limit of each status. Suspects are left out, and so are
// the flows named.
func (s *Reader) Due(ctx context.Context, now time.Time, without []string, limit int) (due []engine.Head, err error) {
	query := selectOpen + `WHERE r.ended IS NULL AND r.status = ? AND r.wake <= ? AND r.held = 0 AND (r.crashes < ? OR r.status IN ('parked', 'waiting'))`
	args := []any{"", micros(now), SuspectAfter}
	read := s.heads
	if len(without) > 0 {
		read = func(ctx context.Context, query string, args ...any) ([]engine.Head, error) { // not worth keeping
			return scanHeads(s.reader.QueryxContext(ctx, query, args...))
		}
		query += " AND r.flow NOT IN (SELECT flow FROM _segno_flow WHERE id IN (" + marks(len(without)) + "))"
		for _, id := range without {
			args = append(args, id)
		}
	}
	args = append(args, limit)
	come, err := s.come(ctx, now)
	for _, status := range come {
		args[0] = status
		heads, err := read(ctx, query+" ORDER BY r.wake, r.flow, r.run LIMIT ?", args...)
		if err != nil {
			return nil, err
		}
		due = append(due, heads...)
	}
	return due, err
}

const comeSQL = `WITH waiting (status) AS (VALUES ('undoing'), ('pending'), ('parked'), ('waiting'))
SELECT status FROM waiting w WHERE EXISTS (
	SELECT 1 FROM _segno_run r INDEXED BY _segno_run_open WHERE r.ended IS NULL AND r.status = w.status AND r.wake <= ?)`

// come returns those of the statuses that the dispatcher looks for in which the
// time of some run has come. Most often there is none, and to ask for whole heads is much dearer.
func (s *Reader) come(ctx context.Context, now time.Time) (come []engine.Status, err error) {
	rows, err := s.query(ctx, comeSQL, micros(now))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var status engine.Status
		if err := rows.Scan(&status); err != nil {
			return nil, err
		}
		come = append(come, status)
	}
	return come, rows.Err()
}

// Suspects returns the runs whose time has come that died with the process too
// often to be resumed along with others.
func (s *Reader) Suspects(ctx context.Context, now time.Time) ([]engine.Head, error) {
	return s.heads(ctx, selectHead+`WHERE r.ended IS NULL AND r.status IN ('pending', 'undoing')
	AND r.wake <= ? AND r.held = 0 AND r.crashes >= ?
ORDER BY r.crashes, r.run`, micros(now), SuspectAfter)
}

// Overlong returns runs that nobody holds and whose wait, which began as a
// duration, would last longer than that: a second at least, lest one that begins
// meanwhile be taken for one.
func (s *Reader) Overlong(ctx context.Context, now time.Time, limit int) ([]engine.Head, error) {
	query := selectOpen +
		"WHERE r.ended IS NULL AND r.status IN ('parked', 'waiting', 'undoing') AND r.wake > ? AND r.due - r.delay > ? AND r.held = 0 AND r.delay > 0 LIMIT ?" // the rare condition first
	return scanHeads(s.reader.QueryxContext(ctx, query, micros(now), micros(now.Add(time.Second)), limit))
}

// DueFlows returns flows with a slot to decide, those that are due first.
func (s *Reader) DueFlows(ctx context.Context, now time.Time, limit int) ([]Flow, error) {
	rows, err := s.query(ctx, "SELECT flow, "+flowColumns+" FROM _segno_flow WHERE next <= ? ORDER BY next, flow LIMIT ?", micros(now), limit)
	if err != nil {
		return nil, err
	}
	flows, err := scanFlows(rows.Rows, nil)
	return flows, errors.Join(err, rows.Err())
}

// NextTime returns the first moment after now at which a run is due, or the first
// at which a flow is, even if it has come; the zero time if there is none.
func (s *Reader) NextTime(ctx context.Context, now time.Time) (next time.Time, err error) {
	const query = `SELECT min(t) FROM (
	SELECT (SELECT next FROM _segno_flow WHERE next IS NOT NULL ORDER BY next LIMIT 1) AS t
	UNION ALL SELECT (SELECT wake FROM _segno_run WHERE ended IS NULL AND status = 'pending' AND wake > ?1 ORDER BY wake LIMIT 1)
	UNION ALL SELECT (SELECT wake FROM _segno_run WHERE ended IS NULL AND status = 'parked' AND wake > ?1 ORDER BY wake LIMIT 1)
	UNION ALL SELECT (SELECT wake FROM _segno_run WHERE ended IS NULL AND status = 'waiting' AND wake > ?1 ORDER BY wake LIMIT 1)
	UNION ALL SELECT (SELECT wake FROM _segno_run WHERE ended IS NULL AND status = 'undoing' AND wake > ?1 ORDER BY wake LIMIT 1))`
	err = s.queryRow(ctx, query, micros(now)).Scan(at{&next})
	return next, err
}

// Flow returns the state of a flow, ErrNotFound if there is none.
func (s *Reader) Flow(ctx context.Context, id string) (f Flow, err error) {
	err = f.scan(s.queryRow(ctx, "SELECT flow, "+flowColumns+" FROM _segno_flow WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return f, err
}

// AnyOpen reports whether any flow has an open run that is not stuck.
func (s *Reader) AnyOpen(ctx context.Context) (open bool, err error) {
	err = s.reader.GetContext(ctx, &open, "SELECT EXISTS (SELECT 1 FROM _segno_flow WHERE active + queued > 0 AND outcome <> 'tripped')")
	return open, err
}

// Flows returns all flows in the order of their registration.
func (s *Reader) Flows(ctx context.Context) ([]Flow, error) {
	rows, err := s.query(ctx, "SELECT flow, "+flowColumns+" FROM _segno_flow ORDER BY orphaned IS NOT NULL, position, flow")
	if err != nil {
		return nil, err
	}
	flows, err := scanFlows(rows.Rows, nil)
	return flows, errors.Join(err, rows.Err())
}

func scanFlows(rows *sql.Rows, err error) (flows []Flow, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var f Flow
		if err := f.scan(rows); err != nil {
			return nil, err
		}
		flows = append(flows, f)
	}
	return flows, rows.Err()
}

const entryColumns = "id, run, visit, kind, state, attempt, version, at, data, cause, error, uncertain, undo, prev, prev_undo"

const selectEntry = "SELECT " + entryColumns + " FROM _segno_journal WHERE id = ?"

const selectChain = `WITH RECURSIVE chain (entry, n) AS (
	SELECT last, 0 FROM _segno_run WHERE run = ?
	UNION ALL
	SELECT j.prev, n + 1 FROM chain CROSS JOIN _segno_journal j ON j.id = chain.entry WHERE j.prev IS NOT NULL
)
SELECT ` + entryColumns + ` FROM chain CROSS JOIN _segno_journal j ON j.id = chain.entry ORDER BY n DESC`

func scanEntry(row interface{ Scan(...any) error }) (e engine.Entry, err error) {
	var uncertain int64
	err = row.Scan(&e.ID, &e.Run, &e.Visit, &e.Kind, &e.State, &e.Attempt, &e.Version, at{&e.At}, blob{&e.Data},
		str{(*string)(&e.Cause)}, str{&e.Error}, num{&uncertain}, str{&e.Undo}, num{&e.Prev}, num{&e.PrevUndo})
	e.Uncertain = uncertain != 0
	return e, err
}

// Entry returns one entry of the journal.
func (s *Reader) Entry(ctx context.Context, id int64) (engine.Entry, error) {
	e, err := scanEntry(s.queryRow(ctx, selectEntry, id))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return e, err
}

// History returns the entries of a run, first to last, by walking its chain;
// it begins with the oldest that was not pruned.
func (s *Reader) History(ctx context.Context, run int64) (entries []engine.Entry, err error) {
	if _, err := s.Run(ctx, run); err != nil {
		return nil, err
	}
	rows, err := s.query(ctx, selectChain, run)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// Undone returns the visits of a run whose undo has succeeded.
func (s *Reader) Undone(ctx context.Context, h *engine.Head) (map[int]bool, error) {
	entries, err := s.History(ctx, h.Run)
	done := map[int]bool{}
	for _, e := range entries {
		if e.Kind == engine.KindUndone {
			done[e.Visit] = true
		}
	}
	return done, err
}
