package segnotest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"testing"

	_ "github.com/segnodev/segno/store" // brings the driver
)

// maxFaults bounds how many faults one Check reports.
const maxFaults = 20

// Check fails the test if the database file at path is damaged, or breaks one
// of the rules that hold after every commit of segno's: of runs and their
// histories, memos, the slot ledger and the counters of flows. The file may be
// in use meanwhile; nothing in it is changed.
func Check(t testing.TB, path string) {
	t.Helper()
	if err := check(path); err != nil {
		t.Errorf("check of %s:\n%v", path, err)
	}
}

// check returns every fault it finds, joined.
func check(path string) error {
	c, err := openChecker(path)
	if err != nil {
		return err
	}
	defer c.close()
	return c.check()
}

func (c *checker) check() error {
	c.pragmas()
	c.runs()
	c.histories()
	c.rows(memoFaults, ownerFaults, counterFaults)
	c.ledgers()
	return errors.Join(c.faults...)
}

// A checker reads a file in one transaction, so that a process that writes it
// meanwhile does not matter.
type checker struct {
	db     *sql.DB
	tx     *sql.Tx
	faults []error
}

// openReader opens a file for reading only.
func openReader(path string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: "mode=ro&_busy_timeout=5000"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func openChecker(path string) (*checker, error) {
	db, err := openReader(path)
	if err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &checker{db: db, tx: tx}, nil
}

func (c *checker) close() {
	_ = c.tx.Rollback()
	_ = c.db.Close()
}

func (c *checker) fault(format string, args ...any) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, fmt.Errorf(format, args...))
	}
}

// each calls fn with every row of a query, which is to scan it.
func (c *checker) each(query string, fn func(scan func(...any) error) error) {
	rows, err := c.tx.Query(query)
	if err != nil {
		c.fault("%s: %v", query, err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			c.fault("%s: %v", query, err)
			return
		}
	}
	if err := rows.Err(); err != nil {
		c.fault("%s: %v", query, err)
	}
}

// rows takes every row that one of the queries returns for a fault, described
// by its only column.
func (c *checker) rows(queries ...string) {
	for _, q := range queries {
		c.each(q, func(scan func(...any) error) error {
			var text string
			err := scan(&text)
			if err == nil {
				c.fault("%s", text)
			}
			return err
		})
	}
}

// pragmas asks SQLite itself.
func (c *checker) pragmas() {
	c.each("PRAGMA integrity_check", func(scan func(...any) error) error {
		var text string
		err := scan(&text)
		if err == nil && text != "ok" {
			c.fault("integrity_check: %s", text)
		}
		return err
	})
	c.each("PRAGMA foreign_key_check", func(scan func(...any) error) error {
		var table, parent string
		var row, key sql.NullInt64
		err := scan(&table, &row, &parent, &key)
		if err == nil {
			c.fault("foreign_key_check: row %d of %s has no row in %s", row.Int64, table, parent)
		}
		return err
	})
}

// runs checks each run's head by itself.
func (c *checker) runs() {
	c.rows(
		`SELECT 'run ' || run || ' is ' || status || ' and has ended at ' || coalesce(ended, 'no time') FROM _segno_run
WHERE (ended IS NOT NULL) <> (status IN ('completed', 'failed', 'cancelled', 'undo_failed'))`,

		`SELECT 'run ' || run || ' is held and ' || status FROM _segno_run
WHERE held <> 0 AND status NOT IN ('running', 'undoing')`,

		`SELECT 'run ' || run || ' is running and nobody holds it' FROM _segno_run WHERE status = 'running' AND held = 0`,

		`SELECT 'run ' || run || ' has ended and would still be woken' FROM _segno_run WHERE ended IS NOT NULL AND wake IS NOT NULL`,

		`SELECT 'run ' || run || ' is ' || status || ' and nothing will wake it' FROM _segno_run
WHERE ended IS NULL AND held = 0 AND wake IS NULL AND status NOT IN ('stuck', 'waiting')`,

		`SELECT 'run ' || run || ' is parked without a due time' FROM _segno_run WHERE status = 'parked' AND due IS NULL`,

		`SELECT 'run ' || run || ' is ' || status || ' without a cause' FROM _segno_run
WHERE status IN ('undoing', 'failed', 'cancelled', 'undo_failed') AND cause IS NULL`,

		`SELECT 'run ' || run || ' is stuck without a reason' FROM _segno_run WHERE status = 'stuck' AND stuck_reason IS NULL`,
	)
}

const (
	memoFaults = `SELECT 'memo ' || m.key || ' of run ' || m.run || ' belongs to visit ' || m.visit || ', the run is in visit ' || coalesce(r.visit, 'none')
FROM _segno_memo m LEFT JOIN _segno_run r USING (run)
WHERE r.run IS NULL OR m.visit > r.visit`

	ownerFaults = `SELECT 'the owner''s table has ' || count(*) || ' rows' FROM _segno_owner HAVING count(*) <> 1`

	// What the counters are made of: see store.count.
	counterFaults = `SELECT 'flow ' || f.id || ' counts ' || printf('%d active, %d queued, %d later, %d stuck', f.active, f.queued, f.later, f.stuck)
	|| '; its runs are ' || printf('%d, %d, %d, %d', n.active, n.queued, n.later, n.stuck)
FROM _segno_flow f JOIN (
	SELECT f.flow,
		count(*) FILTER (WHERE r.status IN ('running', 'parked', 'waiting', 'undoing')) AS active,
		count(*) FILTER (WHERE r.status = 'pending' AND (r.started IS NOT NULL OR r.due IS NULL)) AS queued,
		count(*) FILTER (WHERE r.status = 'pending' AND r.started IS NULL AND r.due IS NOT NULL) AS later,
		count(*) FILTER (WHERE r.status = 'stuck') AS stuck,
		count(r.run) AS runs
	FROM _segno_flow f LEFT JOIN (SELECT * FROM _segno_run WHERE parent IS NULL) r USING (flow) GROUP BY f.flow
) n USING (flow)
WHERE (f.active, f.queued, f.later, f.stuck) <> (n.active, n.queued, n.later, n.stuck) OR f.runs < n.runs`
)
