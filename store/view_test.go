package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"modernc.org/sqlite"

	"github.com/segnodev/segno/engine"
)

// requireSQLite3 skips a test where the sqlite3 shell is missing, unless it has
// to be there.
func requireSQLite3(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err == nil {
		return
	}
	if os.Getenv("SEGNO_REQUIRE_SQLITE3") == "1" {
		t.Fatal("the sqlite3 shell is missing, and SEGNO_REQUIRE_SQLITE3 is 1")
	}
	t.Skip("NOT TESTED: the sqlite3 shell is missing")
}

// shell asks the sqlite3 shell.
func shell(t *testing.T, path, query string) []string {
	t.Helper()
	out, err := exec.Command("sqlite3", "-readonly", path, query).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", query, err, out)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// lines returns what a query finds as the shell prints it.
func lines(t *testing.T, db *sql.DB, query string, args ...any) (all, columns []string) {
	t.Helper()
	rows, err := db.Query(query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	if columns, err = rows.Columns(); err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		cells, dest := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range cells {
			dest[i] = &cells[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, c := range cells {
			texts = append(texts, c.String)
		}
		all = append(all, strings.Join(texts, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all, columns
}

// inhabit fills a file with something for every view.
func inhabit(t *testing.T, s *Store) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, status := range []engine.Status{engine.Completed, engine.Failed, engine.Stuck, engine.Parked, engine.Running} {
		h := addRun(t, s, "f")
		c := transition(h, "b")
		switch {
		case status.Ended():
			c = ending(h, status)
		case status != engine.Running:
			c.After.Status, c.After.Held, c.After.Wake = status, false, now.Add(time.Hour)
			c.Entries = nil
			c.After.State, c.After.Visit = h.State, h.Visit
		}
		if status == engine.Stuck {
			c.After.StuckReason = "nobody knows"
		}
		if err := s.Commit(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Update(ctx, func(tx *Tx) error {
		f := tx.Flow("f")
		f.Next, f.LastRun, f.Paused, f.PauseNote = now.Add(time.Minute), now, now, "lunch"
		slots := Slots{First: now, Last: now, Count: 1, Outcome: "skipped", Reason: "overlap"}
		if err := tx.Ledger(f, slots, now); err != nil {
			return err
		}
		if err := tx.AddBackfill(f, Backfill{Schedule: "every 1m0s", Anchor: now, First: now, Last: now, Cursor: now, Count: 1, At: now}); err != nil {
			return err
		}
		if err := tx.PutBreaker(Breaker{Name: "bank", State: "open", Until: now, Failures: 5, Error: "refused", At: now}); err != nil {
			return err
		}
		if err := tx.PutLimiter(Limiter{Name: "quota", Start: now, Until: now.Add(time.Hour), Used: 3, Quota: 9, At: now}); err != nil {
			return err
		}
		if err := tx.Signal(1, Signal{Name: "go", Message: "m1", Payload: []byte(`{}`)}, now); err != nil {
			return err
		}
		return tx.Event("paused", "f", "lunch", now)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publicViews are the views that segno promises, as far as they are built.
var publicViews = []string{
	"segno_backfills", "segno_breakers", "segno_due", "segno_errors", "segno_events", "segno_flows", "segno_history", "segno_limiters", "segno_log",
	"segno_owner", "segno_runs", "segno_signals", "segno_slots",
}

func TestViewsReadTheSameInTheShell(t *testing.T) {
	requireSQLite3(t)
	s := fresh(t)
	inhabit(t, s)
	views, _ := lines(t, s.DB(), "SELECT name FROM sqlite_master WHERE type = 'view' AND name LIKE 'segno_%' ORDER BY name")
	if !slices.Equal(views, publicViews) {
		t.Errorf("views: got = %v, want %v", views, publicViews)
	}
	isTime := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	times := []string{"at", "since", "last_run", "next_run", "paused", "created", "started", "first", "last", "decided", "due", "until", "start"}
	for _, view := range views {
		query := "SELECT * FROM " + view
		want, columns := lines(t, s.DB(), query)
		if len(want) == 0 {
			t.Errorf("%s: got = no rows, want some", view)
			continue
		}
		if got := shell(t, s.path, query); !slices.Equal(got, want) {
			t.Errorf("%s in the shell: got = %q, want %q", view, got, want)
		}
		cells := strings.Split(want[0], "|")
		for i, column := range columns {
			if slices.Contains(times, column) && !isTime.MatchString(cells[i]) {
				t.Errorf("%s.%s: got = %q, want a time as in 2006-01-02T15:04:05.000Z", view, column, cells[i])
			}
		}
	}
	// And the same of the file at rest.
	shut(t, s)
	if got := shell(t, s.path, "SELECT status FROM segno_runs ORDER BY run"); !slices.Equal(got, []string{"completed", "failed", "stuck", "parked", "running"}) {
		t.Errorf("statuses: got = %v", got)
	}
}

func TestHistoryIsInOrder(t *testing.T) {
	s := fresh(t)
	h, other := addRun(t, s, "f"), addRun(t, s, "f")
	for _, state := range []string{"b", "c", "d"} {
		for _, h := range []*engine.Head{&h, &other} {
			c := transition(*h, state)
			if err := s.Commit(ctx, c); err != nil {
				t.Fatal(err)
			}
			*h = c.After
		}
	}
	got, _ := lines(t, s.DB(), "SELECT visit, kind, state FROM segno_history WHERE run = ?", h.Run)
	if want := []string{"1|enter|a", "2|enter|b", "3|enter|c", "4|enter|d"}; !slices.Equal(got, want) {
		t.Errorf("segno_history: got = %v, want %v", got, want)
	}
	got, _ = lines(t, s.DB(), "SELECT run, state FROM segno_log ORDER BY id DESC LIMIT 3")
	if want := []string{"2|d", "1|d", "2|c"}; !slices.Equal(got, want) {
		t.Errorf("segno_log: got = %v, want %v", got, want)
	}
}

// plan is what SQLite means to do for a query, without the tree.
func plan(t *testing.T, db *sql.DB, query string, args ...any) (steps []string) {
	t.Helper()
	all, _ := lines(t, db, "EXPLAIN QUERY PLAN "+query, args...)
	for _, line := range all {
		steps = append(steps, strings.SplitN(line, "|", 4)[3])
	}
	return steps
}

// A plan that is pinned: what it must have, and what not.
type pin struct{ has, hasNot *regexp.Regexp }

func (p pin) check(t *testing.T, what string, steps []string) {
	t.Helper()
	text := strings.Join(steps, "\n")
	if !p.has.MatchString(text) || p.hasNot.MatchString(text) {
		t.Errorf("plan of %s: got = \n%s\nwant %q and not %q", what, text, p.has, p.hasNot)
	}
}

// The views are made for the questions that are asked most.
func TestPlansOfTheViews(t *testing.T) {
	pins := map[string]pin{
		"SELECT * FROM segno_history WHERE run = 2": {
			regexp.MustCompile(`SEARCH r USING INTEGER PRIMARY KEY(.|\n)*SEARCH _segno_journal USING INTEGER PRIMARY KEY(.|\n)*SEARCH j USING INTEGER PRIMARY KEY`),
			regexp.MustCompile(`SCAN (j|r|f|_segno\w+)\b|AUTOMATIC|BLOOM`), // a Bloom filter is made by a scan
		},
		"SELECT * FROM segno_log ORDER BY id DESC LIMIT 20": {
			regexp.MustCompile(`^SCAN j\nSEARCH r USING INTEGER PRIMARY KEY .*\nSEARCH f USING INTEGER PRIMARY KEY`),
			regexp.MustCompile(`TEMP B-TREE|AUTOMATIC|BLOOM`),
		},
		"SELECT * FROM segno_errors ORDER BY run DESC LIMIT 20": {
			regexp.MustCompile(`(?s)SEARCH r USING INTEGER PRIMARY KEY.*INDEX _segno_run_bad \(status=\?\).*INDEX _segno_run_open \(status=\?\)`),
			regexp.MustCompile(`SCAN`),
		},
		"SELECT * FROM segno_runs WHERE run = 2": {
			regexp.MustCompile(`SEARCH r USING INTEGER PRIMARY KEY`), regexp.MustCompile(`SCAN`),
		},
	}
	s := fresh(t)
	inhabit(t, s)
	for i := range 100 { // so that statistics have something to say
		addRun(t, s, fmt.Sprint("g", i/2))
	}
	for _, when := range []string{"", ", after ANALYZE"} {
		for query, p := range pins {
			p.check(t, query+when, plan(t, s.DB(), query))
			if _, err := exec.LookPath("sqlite3"); err != nil {
				continue
			}
			var steps []string
			for _, line := range shell(t, s.path, "EXPLAIN QUERY PLAN "+query)[1:] { // the first says QUERY PLAN
				steps = append(steps, strings.TrimLeft(line, " |-`"))
			}
			p.check(t, query+" in the shell"+when, steps)
		}
		must(t, s, "ANALYZE")
	}
}

// spy is SQLite's driver with a record of what it is asked.
type spy struct {
	path    string
	mu      sync.Mutex
	queries []asked
}

type asked struct {
	query string
	args  []any
}

func (p *spy) Driver() driver.Driver { return &sqlite.Driver{} }

func (p *spy) Connect(context.Context) (driver.Conn, error) {
	c, err := p.Driver().Open(readerDSN(p.path))
	return spyConn{c, p}, err
}

type spyConn struct {
	driver.Conn
	spy *spy
}

func (c spyConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	return spyStmt{stmt, query, c.spy}, err
}

type spyStmt struct {
	driver.Stmt
	query string
	spy   *spy
}

func (s spyStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	a := asked{query: s.query}
	for _, v := range args {
		a.args = append(a.args, v.Value)
	}
	s.spy.mu.Lock()
	s.spy.queries = append(s.spy.queries, a)
	s.spy.mu.Unlock()
	return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
}

// What the scheduler asks again and again goes by an index, so that runs which
// have ended cost nothing.
func TestPlansOfTheDispatcher(t *testing.T) {
	s := fresh(t)
	inhabit(t, s)
	for _, status := range []string{"undoing", "pending", "parked", "waiting"} {
		h := addRun(t, s, "due")
		must(t, s, fmt.Sprintf("UPDATE _segno_run SET status = '%s', held = 0, wake = 1 WHERE run = %d", status, h.Run))
	}
	now := time.Now()
	sp := &spy{path: s.path}
	r := &Reader{path: s.path, reader: sqlx.NewDb(sql.OpenDB(sp), "sqlite")}
	defer r.Close()
	const open, next = `INDEX _segno_run_open \(status=\? AND wake`, `INDEX _segno_flow_next \(next`
	scans, scansTable := regexp.MustCompile(`SCAN|TEMP B-TREE`), regexp.MustCompile(`SCAN (r|f|_segno)|TEMP B-TREE`)
	for _, tt := range []struct {
		name    string
		ask     func() error
		queries int
		pin     pin
	}{
		{"Due", func() error { _, err := r.Due(ctx, now, nil, 10); return err }, 1 + 4, pin{regexp.MustCompile(open), scansTable}},
		{"Due without flows", func() error { _, err := r.Due(ctx, now, []string{"f", "g"}, 10); return err }, 1 + 4,
			pin{regexp.MustCompile(open), scansTable}},
		{"Suspects", func() error { _, err := r.Suspects(ctx, now); return err }, 1,
			pin{regexp.MustCompile(open), regexp.MustCompile(`SCAN`)}},
		{"DueFlows", func() error { _, err := r.DueFlows(ctx, now, 10); return err }, 1, pin{regexp.MustCompile(next), scans}},
		{"NextTime", func() error { _, err := r.NextTime(ctx, now); return err }, 1,
			pin{regexp.MustCompile(next + `(.|\n)*` + strings.Repeat(open+`(.|\n)*`, 4)), regexp.MustCompile(`SCAN _|TEMP B-TREE`)}},
		{"Run", func() error { _, err := r.Run(ctx, 1); return err }, 1, pin{regexp.MustCompile(`SEARCH r USING INTEGER PRIMARY KEY`), scans}},
		{"FindRun", func() error { _, _ = r.FindRun(ctx, "f", "k"); return nil }, 1,
			pin{regexp.MustCompile(`INDEX _segno_run_key \(flow=\? AND key=\?\)`), scans}},
		{"Runs", func() error { _, err := r.Runs(ctx, Filter{Limit: 10}); return err }, 1,
			pin{regexp.MustCompile(`^SCAN r\n`), regexp.MustCompile(`TEMP B-TREE`)}}, // newest first, by id
		{"Runs that failed", func() error {
			_, err := r.Runs(ctx, Filter{Statuses: []string{"failed", "undo_failed"}, Limit: 10})
			return err
		}, 2, pin{regexp.MustCompile(`INDEX _segno_run_bad \(status=\?\)`), regexp.MustCompile(`SCAN (r|_segno)`)}},
		{"Runs that are open", func() error { _, err := r.Runs(ctx, Filter{Statuses: []string{"parked"}, Limit: 10}); return err }, 2,
			pin{regexp.MustCompile(`INDEX _segno_run_open \(status=\?\)`), regexp.MustCompile(`SCAN (r|_segno)`)}},
		{"Flow", func() error { _, err := r.Flow(ctx, "f"); return err }, 1, pin{regexp.MustCompile(`id=\?`), scans}},
		{"Entry", func() error { _, err := r.Entry(ctx, 1); return err }, 1, pin{regexp.MustCompile(`INTEGER PRIMARY KEY`), scans}},
		{"History", func() error { _, err := r.History(ctx, 1); return err }, 2,
			pin{regexp.MustCompile(`INTEGER PRIMARY KEY`), regexp.MustCompile(`SCAN (j|_segno)`)}},
	} {
		sp.queries = nil
		if err := tt.ask(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if len(sp.queries) != tt.queries {
			t.Errorf("%s: got = %d queries, want %d", tt.name, len(sp.queries), tt.queries)
		}
		for _, a := range sp.queries {
			tt.pin.check(t, tt.name+": "+a.query, plan(t, s.DB(), a.query, a.args...))
		}
	}
}

// Runs of open statuses, and of those of a bad end, are listed alike, whether few
// have them or many.
func TestRunsOfFewAndOfMany(t *testing.T) {
	s, err := tryOpen(filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(); _ = s.Release() }()
	crowd(t, s, 5*fewRuns, 1, 10)
	const open, bad = "UPDATE _segno_run SET ended = NULL, status = 'parked', ", "UPDATE _segno_run SET status = 'failed', "
	must(t, s, "INSERT INTO _segno_flow (id, position, schedule, registered) VALUES ('g', 1, '', 1)",
		open+"flow = 2 WHERE run % 1000 = 7", bad+"flow = 2 WHERE run % 1000 = 5")
	list := func(f Filter) string {
		heads, err := s.Runs(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		ids := []int64{}
		for _, h := range heads {
			ids = append(ids, h.Run)
		}
		return fmt.Sprint(ids)
	}
	parked, failed := []string{"parked", "waiting"}, []string{"failed", "cancelled"}
	if got, want := list(Filter{Statuses: parked, Limit: 3}), "[4007 3007 2007]"; got != want {
		t.Errorf("of all flows: got = %s, want %s", got, want)
	}
	if got, want := list(Filter{Statuses: []string{"parked", "completed"}, Limit: 3}), "[5000 4999 4998]"; got != want {
		t.Errorf("with runs that are over: got = %s, want %s", got, want)
	}
	for _, n := range []string{"few", "many"} {
		for _, c := range []struct {
			f    Filter
			want string
		}{
			{Filter{Flow: "g", Statuses: parked, Limit: 3}, "[4007 3007 2007]"},
			{Filter{Flow: "g", Statuses: parked, Before: 2007, Limit: 3}, "[1007 7]"},
			{Filter{Flow: "g", Statuses: parked, Before: 4007, Limit: 1}, "[3007]"},
			{Filter{Flow: "g", Statuses: []string{"stuck"}, Limit: 3}, "[]"},
			{Filter{Flow: "g", Statuses: failed, Limit: 3}, "[4005 3005 2005]"},
			{Filter{Flow: "g", Statuses: failed, Before: 4005, Limit: 1}, "[3005]"},
			{Filter{Flow: "g", Statuses: []string{"undo_failed"}, Limit: 3}, "[]"},
			{Filter{Flow: "g", Statuses: []string{"failed", "parked"}, Limit: 3}, "[4007 4005 3007]"},
		} {
			if got := list(c.f); got != c.want {
				t.Errorf("%s, %+v: got = %s, want %s", n, c.f, got, c.want)
			}
		}
		must(t, s, open+"flow = 1 WHERE flow = 1 AND run % 2 = 0", bad+"flow = 1 WHERE flow = 1 AND run % 2 = 1")
	}
}
