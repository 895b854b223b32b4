package segno_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
)

// The workflows of these tests have states of type leg and data of type cargo.
type (
	leg   string
	legs  = segno.Steps[leg, cargo]
	route = segno.Workflow[leg, cargo]
	do    = segno.DoFunc[leg, cargo]
)

const (
	legA leg = "a"
	legB leg = "b"
	legC leg = "c"
	legD leg = "d"
	done leg = "done"
)

type cargo struct {
	N    int    `json:"n,omitempty"`
	Text string `json:"text,omitempty"`
}

var errTest = errors.New("test: went wrong")

// to does nothing but go to next.
func to(next leg) do {
	return func(context.Context, *cargo) (leg, error) { return next, nil }
}

// fail always fails.
func fail(context.Context, *cargo) (leg, error) { return "", errTest }

// hold waits for the end of its context.
func hold(ctx context.Context, _ *cargo) (leg, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// one is a workflow of one state, which do leads out of.
func one(f do) route {
	return route{Initial: legA, Steps: legs{legA: {Do: f}, done: {Final: true}}}
}

// oneStep is a workflow of one state with the whole step given.
func oneStep(s segno.Step[leg, cargo]) route {
	return route{Initial: legA, Steps: legs{legA: s, done: {Final: true}}}
}

// inBubble runs a test in fake time, beside other tests.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// patient is the context of a wait for a run: one that comes to no end fails its
// test. In a bubble it would go on for as long as the owner looks after its files.
func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*24*time.Hour)
}

// A bed is one database file and the scheduler that runs on it at present, all
// inside one bubble. When the test ends the scheduler is stopped and the file
// checked.
type bed struct {
	t       *testing.T
	path    string
	opts    segno.Options
	run     *segno.RunningScheduler // nil while none runs
	dead    *atomic.Bool            // set when the process is taken for dead
	commits atomic.Int64            // made so far, over all starts
	ahead   atomic.Int64            // of the wall clock to the bubble's time
	built   time.Time               // when the program was built; zero: not known
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, path: filepath.Join(t.TempDir(), "test.db"), opts: segno.Options{SmallWAL: true}}
	t.Cleanup(b.close)
	return b
}

// with sets the options of the starts to come.
func (b *bed) with(o segno.Options) *bed {
	o.SmallWAL = true
	b.opts = o
	return b
}

// start starts the flows on the file.
func (b *bed) start(flows ...segno.Flow) *live {
	b.t.Helper()
	run, err := b.tryStart(context.Background(), flows...)
	if err != nil {
		b.t.Fatalf("Start: got error %v, want none", err)
	}
	return run
}

func (b *bed) tryStart(ctx context.Context, flows ...segno.Flow) (*live, error) {
	b.t.Helper()
	s := segno.New(b.path, b.opts)
	s.SetClock(func() time.Duration { return time.Duration(b.ahead.Load()) })
	s.SetBuilt(b.built)
	for _, f := range flows {
		if err := s.Add(f); err != nil {
			b.t.Fatalf("Add(%q): got error %v, want none", f.ID, err)
		}
	}
	dead := new(atomic.Bool)
	run, err := s.Start(crashpoint.With(ctx, func(commit func() error) error {
		if dead.Load() {
			return fmt.Errorf("%w: the process is dead", segno.ErrStoreFailed)
		}
		b.commits.Add(1)
		return commit()
	}))
	if err != nil {
		return nil, err
	}
	b.run, b.dead = run, dead
	return &live{run, b.t}, nil
}

// stepClock sets the wall clock d ahead of the bubble's time.
func (b *bed) stepClock(d time.Duration) { b.ahead.Store(int64(d)) }

// stop stops the scheduler as a program does that ends.
func (b *bed) stop() {
	b.t.Helper()
	if b.run == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.run.Stop(ctx); err != nil {
		b.t.Errorf("Stop: got error %v, want none", err)
	}
	b.run = nil
}

// kill ends the scheduler as SIGKILL would: from now on not one commit reaches
// the file. What its goroutines still do before they notice is of no account.
func (b *bed) kill() {
	b.t.Helper()
	b.dead.Store(true)
	_ = b.run.Write(context.Background(), func(segno.Tx) error { return nil })
	if err := b.run.Wait(); !errors.Is(err, segno.ErrStoreFailed) {
		b.t.Fatalf("Wait after the kill: got %v, want %v", err, segno.ErrStoreFailed)
	}
	b.run = nil
}

// restart kills what runs and starts the flows again.
func (b *bed) restart(flows ...segno.Flow) *live {
	b.t.Helper()
	b.kill()
	return b.start(flows...)
}

// close stops what runs and checks the file.
func (b *bed) close() {
	b.stop()
	synctest.Wait()
	if b.t.Failed() {
		return
	}
	b.check()
}

// db opens the file beside segno. The caller closes it.
func (b *bed) db() *sql.DB {
	b.t.Helper()
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: b.path}).EscapedPath()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		b.t.Fatal(err)
	}
	return db
}

// exec changes the file behind segno's back, while no scheduler runs.
func (b *bed) exec(query string, args ...any) {
	b.t.Helper()
	db := b.db()
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// rows returns what a query finds, a line per row with | between the columns.
func (b *bed) rows(query string, args ...any) []string {
	b.t.Helper()
	db := b.db()
	defer db.Close()
	lines, err := queryLines(db, query, args...)
	if err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
	return lines
}

func queryLines(db *sql.DB, query string, args ...any) (lines []string, err error) {
	rows, err := db.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values, cells := make([]any, len(columns)), make([]string, len(columns))
		for i := range values {
			values[i] = new(sql.NullString)
		}
		if err := rows.Scan(values...); err != nil {
			return nil, err
		}
		for i := range values {
			cells[i] = values[i].(*sql.NullString).String
		}
		lines = append(lines, strings.Join(cells, "|"))
	}
	return lines, rows.Err()
}

// rules are queries that find a row only if the file contradicts itself.
var rules = []struct{ rule, query string }{
	{"foreign keys hold", `SELECT * FROM pragma_foreign_key_check`},
	{"the flows' counters are those of their open runs", `
SELECT f.id, f.active, f.queued + f.later, f.stuck FROM _segno_flow f WHERE
	f.active <> (SELECT count(*) FROM _segno_run r WHERE r.flow = f.flow AND status IN ('running', 'parked', 'waiting', 'undoing')) OR
	f.queued + f.later <> (SELECT count(*) FROM _segno_run r WHERE r.flow = f.flow AND status = 'pending') OR
	f.stuck <> (SELECT count(*) FROM _segno_run r WHERE r.flow = f.flow AND status = 'stuck')`},
	{"a run is ended if its status says so, and not held then", `
SELECT run, status, ended, held FROM _segno_run
WHERE (ended IS NOT NULL) <> (status IN ('completed', 'failed', 'cancelled', 'undo_failed')) OR ended IS NOT NULL AND held`},
	{"an ended run's last entry is an end, and no open run has one", `
SELECT r.run, r.status, j.kind FROM _segno_run r JOIN _segno_journal j ON j.id = r.last
WHERE (r.ended IS NOT NULL) <> (j.kind = 'end')`},
	{"a run has one end more than repeated rollbacks", `
SELECT r.run, count(*) FROM _segno_run r JOIN _segno_journal j ON j.run = r.run AND j.kind = 'end'
WHERE NOT r.redo GROUP BY r.run HAVING count(*) <> (r.ended IS NOT NULL)`},
	{"an entry's predecessor is of the same run, and its visit the same or one less", `
SELECT j.id, j.visit, p.visit FROM _segno_journal j LEFT JOIN _segno_journal p ON p.id = j.prev
WHERE j.prev IS NOT NULL AND (p.id IS NULL OR p.run <> j.run OR p.id >= j.id
	OR j.kind IN ('enter', 'end') AND j.visit - p.visit NOT IN (0, 1) AND p.kind IN ('enter', 'retry', 'crash') AND p.undo IS NULL)`}, // between two undos others may have been pruned
	{"a run's first entry has no predecessor", `
SELECT r.run FROM _segno_run r JOIN _segno_journal j ON j.id = r.first WHERE j.prev IS NOT NULL OR j.kind <> 'enter'`},
	{"no memo belongs to a visit to come", `
SELECT m.run, m.visit, m.key FROM _segno_memo m JOIN _segno_run r USING (run) WHERE m.visit > r.visit`},
	{"no slot has two outcomes", `
SELECT l.flow, l.first, l.last FROM _segno_ledger l
WHERE l.last < l.first OR EXISTS (SELECT 1 FROM _segno_ledger o WHERE o.flow = l.flow AND o.first > l.first AND o.first <= l.last)
	AND NOT EXISTS (SELECT 1 FROM _segno_event e WHERE e.flow = l.flow AND e.kind = 'reanchored')`}, // slots of two grids
	{"no slot lies behind its flow's cursor", `
SELECT f.id, f.cursor, l.last FROM _segno_ledger l JOIN _segno_flow f USING (flow)
WHERE l.last > f.cursor AND NOT EXISTS (SELECT 1 FROM _segno_event e WHERE e.flow = f.flow AND e.kind IN ('reanchored', 'clock_rollback'))`},
	{"a fired slot has its run, unless that was pruned", `
SELECT l.id FROM _segno_ledger l LEFT JOIN _segno_run r USING (run)
WHERE l.outcome = 'fired' AND (l.run IS NULL OR r.run IS NOT NULL AND r.slot IS NOT l.first)`},
}

// check asserts that the file is whole and does not contradict itself.
func (b *bed) check() {
	db := b.db()
	defer db.Close()
	if lines, err := queryLines(db, "PRAGMA integrity_check"); err != nil || len(lines) != 1 || lines[0] != "ok" {
		b.t.Errorf("integrity_check: got %q, %v, want ok", lines, err)
	}
	for _, r := range rules {
		if lines, err := queryLines(db, r.query); err != nil || len(lines) > 0 {
			b.t.Errorf("%s: got exceptions %q, %v, want none", r.rule, lines, err)
		}
	}
}

// live is a running scheduler whose methods end the test on an error.
type live struct {
	*segno.RunningScheduler
	t *testing.T
}

func (l *live) trigger(id string, d cargo) segno.RunID {
	l.t.Helper()
	return l.triggerWith(id, segno.Trigger{Input: d})
}

func (l *live) triggerWith(id string, t segno.Trigger) segno.RunID {
	l.t.Helper()
	run, err := l.Trigger(context.Background(), id, t)
	if err != nil {
		l.t.Fatalf("Trigger(%q): got error %v, want none", id, err)
	}
	return run
}

// completed waits for a run that must complete.
func (l *live) completed(id segno.RunID) segno.RunInfo {
	l.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	info, err := l.WaitRun(ctx, id)
	if err != nil || info.Status != segno.RunCompleted {
		l.t.Fatalf("run %d: got %s, %v, want completed", id, info.Status, err)
	}
	return info
}

// ended waits for a run that must end with the given status other than completed.
func (l *live) ended(id segno.RunID, want segno.RunStatus) *segno.RunError {
	l.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	info, err := l.WaitRun(ctx, id)
	var e *segno.RunError
	if !errors.As(err, &e) || info.Status != want {
		l.t.Fatalf("run %d: got %s, %v, want %s and its RunError", id, info.Status, err, want)
	}
	return e
}

func (l *live) info(id segno.RunID) segno.RunInfo {
	l.t.Helper()
	info, err := l.Run(context.Background(), id)
	if err != nil {
		l.t.Fatalf("Run(%d): got error %v, want none", id, err)
	}
	return info
}

func (l *live) status(id string) segno.FlowInfo {
	l.t.Helper()
	info, err := l.Status(context.Background(), id)
	if err != nil {
		l.t.Fatalf("Status(%q): got error %v, want none", id, err)
	}
	return info
}

// runs returns all runs of a flow, oldest first.
func (l *live) runs(flow string) []segno.RunInfo {
	l.t.Helper()
	infos, err := l.Runs(context.Background(), segno.RunFilter{Flow: flow, Limit: 10_000})
	if err != nil {
		l.t.Fatalf("Runs(%q): got error %v, want none", flow, err)
	}
	for i, j := 0, len(infos)-1; i < j; i, j = i+1, j-1 {
		infos[i], infos[j] = infos[j], infos[i]
	}
	return infos
}

func (l *live) entries(id segno.RunID) []segno.Entry {
	l.t.Helper()
	entries, err := l.History(context.Background(), id)
	if err != nil {
		l.t.Fatalf("History(%d): got error %v, want none", id, err)
	}
	return entries
}

// log returns a run's history in short: "enter a, retry a, enter b".
func (l *live) log(id segno.RunID) string {
	l.t.Helper()
	var words []string
	for _, e := range l.entries(id) {
		words = append(words, e.Kind+" "+e.State)
	}
	return strings.Join(words, ", ")
}

// slots returns a flow's ledger in short: "fired 1, coalesced 2, skipped 3 overlap".
func (l *live) slots(flow string) string {
	l.t.Helper()
	lines, err := queryLines(l.DB(), `SELECT outcome || ' ' || count || coalesce(' ' || reason, '') FROM segno_slots WHERE flow = ? ORDER BY first`, flow)
	if err != nil {
		l.t.Fatalf("slots of %q: %v", flow, err)
	}
	return strings.Join(lines, ", ")
}

// expect compares what a test got with what it wants.
func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got = %v, want %v", what, show(got), show(want))
	}
}

func show(v any) string {
	if at, ok := v.(time.Time); ok {
		return at.Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("%v", v)
}

// expectError asserts that err is want.
func expectError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// flowOf is a manual flow.
func flowOf(id string, w segno.Definition) segno.Flow { return segno.Flow{ID: id, Workflow: w} }

// A tally collects what steps have to say, in order.
type tally struct {
	mu    sync.Mutex
	words []string
}

func (c *tally) add(format string, args ...any) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.words = append(c.words, fmt.Sprintf(format, args...))
	return len(c.words)
}

func (c *tally) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.words)
}

// String returns all that was said, and take forgets it, too.
func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.words, " ")
}

func (c *tally) take() string {
	said := c.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.words = nil
	return said
}

// contains reports whether text has all the parts.
func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
