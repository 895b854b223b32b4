package powercut_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// A claim is what somebody relies on. Its zero fields claim nothing.
type claim struct {
	at        time.Time // when it was made
	started   bool      // the file is one of segno's
	run       segno.RunID
	seq       int64 // so many commits of the run, at the least
	visit     int   // so many visits
	units     int   // so many units of a walk
	status    segno.RunStatus
	data      string
	message   string // a signal
	cancelled bool
	batch     int
	paused    string // a flow
}

// String names what is claimed.
func (c claim) String() string {
	var b strings.Builder
	for _, f := range []struct {
		name  string
		value any
		is    bool
	}{
		{"started", c.started, c.started}, {"batch", c.batch, c.batch != 0}, {"paused", c.paused, c.paused != ""},
		{"run", c.run, c.run != 0}, {"seq", c.seq, c.seq != 0}, {"visit", c.visit, c.visit != 0}, {"units", c.units, c.units != 0},
		{"status", c.status, c.status != ""}, {"data", c.data, c.data != ""}, {"message", c.message, c.message != ""},
		{"cancelled", c.cancelled, c.cancelled},
	} {
		if f.is {
			fmt.Fprintf(&b, "%s %v, ", f.name, f.value)
		}
	}
	return b.String() + c.at.Sub(segnotest.Epoch).String()
}

// A row is what a file says about a run.
type row struct {
	flow, data     string
	status         segno.RunStatus
	seq            int64
	visit          int
	cancelled      bool
	entered, undid int // entries of the journal
	memo           int // units of a walk
	did, undone    int // rows beside
	messages       map[string]bool
}

// contents are those of a file.
type contents struct {
	ours    bool
	runs    map[segno.RunID]*row
	batches map[int]int
	paused  map[string]bool
}

func openFile(path, mode string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: "mode=" + mode}
	return sql.Open("sqlite", u.String())
}

// read reads a file.
func read(path string) (c *contents, err error) {
	db, err := openFile(path, "ro")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	c = &contents{runs: map[segno.RunID]*row{}, batches: map[int]int{}, paused: map[string]bool{}}
	var tables int
	if err := db.QueryRow("SELECT count(*) FROM sqlite_master WHERE name IN ('_segno_owner', 'did', 'batch')").Scan(&tables); err != nil {
		return nil, err
	}
	if c.ours = tables == 3; !c.ours {
		return c, nil
	}
	return c, errors.Join(c.readRuns(db), c.readParts(db))
}

func (c *contents) readRuns(db *sql.DB) error {
	return each(db, `SELECT r.run, f.id, r.data, r.status, r.seq, r.visit, r.cancel FROM _segno_run r JOIN _segno_flow f USING (flow)`,
		func(scan func(...any) error) error {
			var id segno.RunID
			r := &row{messages: map[string]bool{}}
			err := scan(&id, &r.flow, &r.data, &r.status, &r.seq, &r.visit, &r.cancelled)
			c.runs[id] = r
			return err
		})
}

// readParts reads what else there is, about runs and beside them.
func (c *contents) readParts(db *sql.DB) error {
	count := func(query string, field func(r *row) *int) error {
		return each(db, query, func(scan func(...any) error) error {
			var id segno.RunID
			var n int
			err := scan(&id, &n)
			if r := c.runs[id]; r != nil {
				*field(r) = n
			}
			return err
		})
	}
	return errors.Join(
		count("SELECT run, count(*) FROM _segno_journal WHERE kind = 'enter' GROUP BY run", func(r *row) *int { return &r.entered }),
		count("SELECT run, count(*) FROM _segno_journal WHERE kind = 'undone' GROUP BY run", func(r *row) *int { return &r.undid }),
		count("SELECT run, count(*) FROM did WHERE unit = 'undo' GROUP BY run", func(r *row) *int { return &r.undone }),
		count("SELECT run, count(*) FROM did WHERE unit <> 'undo' GROUP BY run", func(r *row) *int { return &r.did }),
		count("SELECT run, value ->> '$.n' FROM _segno_memo WHERE key = 'segno.stepped'", func(r *row) *int { return &r.memo }),
		each(db, "SELECT run, message FROM _segno_signal", func(scan func(...any) error) error {
			var id segno.RunID
			var message string
			err := scan(&id, &message)
			if r := c.runs[id]; r != nil {
				r.messages[message] = true
			}
			return err
		}),
		each(db, "SELECT id, count(*) FROM batch GROUP BY id", func(scan func(...any) error) error {
			var id, n int
			err := scan(&id, &n)
			c.batches[id] = n
			return err
		}),
		each(db, "SELECT id FROM _segno_flow WHERE paused IS NOT NULL", func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			c.paused[id] = true
			return err
		}),
	)
}

func each(db *sql.DB, query string, fn func(scan func(...any) error) error) error {
	rows, err := db.Query(query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return rows.Err()
}

// lost returns the claims that the file does not bear out. A run may be gone
// when it has been over for as long as it is kept.
func (c *contents) lost(claims []any) (lost []claim) {
	ends := map[segno.RunID]time.Time{}
	var now time.Time
	for _, any := range claims {
		cl := any.(claim)
		if now = cl.at; cl.status != "" && ends[cl.run].IsZero() {
			ends[cl.run] = cl.at
		}
	}
	for _, any := range claims {
		cl := any.(claim)
		if end := ends[cl.run]; c.runs[cl.run] == nil && !end.IsZero() && now.Sub(end) > keepFor-2*time.Minute {
			continue
		}
		if !c.holds(&cl) {
			lost = append(lost, cl)
		}
	}
	return lost
}

func (c *contents) holds(cl *claim) bool {
	switch {
	case cl.started:
		return c.ours
	case cl.batch != 0:
		return c.batches[cl.batch] == batchParts
	case cl.paused != "":
		return c.paused[cl.paused]
	}
	r := c.runs[cl.run]
	return r != nil && r.seq >= cl.seq && r.visit >= cl.visit && r.did >= cl.units &&
		(cl.status == "" || r.status == cl.status) && (cl.data == "" || r.data == cl.data) &&
		(!cl.cancelled || r.cancelled || r.status.Ended()) && (cl.message == "" || r.messages[cl.message])
}

// torn says where the file has a part of a transaction, and not the rest.
func (c *contents) torn() (faults []string) {
	for id, n := range c.batches {
		if n != batchParts {
			faults = append(faults, fmt.Sprintf("batch %d has %d rows, want %d", id, n, batchParts))
		}
	}
	for id, r := range c.runs {
		units := r.entered - 1 // each entered visit closes the one before
		if r.status == segno.RunCompleted {
			units++
		}
		switch {
		case r.flow == "walk" && r.status == segno.RunCompleted:
			units = walkUnits
		case r.flow == "walk":
			units = r.memo
		case r.flow == "nap" && r.status == segno.RunCompleted:
			units = 1 // the other only sleeps
		}
		if r.did != units || r.undone != r.undid {
			faults = append(faults, fmt.Sprintf("run %d of %s, %s: rows of %d units and %d undos, want %d and %d",
				id, r.flow, r.status, r.did, r.undone, units, r.undid))
		}
	}
	return faults
}
