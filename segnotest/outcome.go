package segnotest

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Outcome is how a scenario ended: what CrashSweep compares. Texts that a
// repetition may change are left out or replaced: entries that record crashes,
// the stacks of panics, and the random part of idempotency keys.
type Outcome struct {
	Crashes int // how often the program was killed
	Runs    []EndedRun
	Flows   []Flow
	// Tables are the user's own, each row as text, in order.
	Tables map[string][]string
	// Effects counts the effects of the steps.
	Effects map[string]int
}

// An EndedRun is how a run ended, or stood in the end.
type EndedRun struct {
	Flow    string
	Key     string    // of its trigger
	Slot    time.Time // zero: it was triggered
	Try     int       // which of the slot's runs it is, from 0
	Missed  int
	Status  string
	State   string
	Data    string // JSON
	Visit   int
	Version int
	Cause   string
	Error   string
	// History has a line for each entry: visit, kind, state, attempt, version,
	// error and data.
	History []string
	// The times are compared only if Scenario.Times is set.
	Created, Started, Due, Ended time.Time
	id                           int64
	nonce, name                  string
}

// A Flow is how a flow stood in the end.
type Flow struct {
	ID       string
	Outcome  string // idle, completed, backoff, tripped
	Schedule string
	Runs     int64 // ever begun
	Streak   int
	Open     int
	Stuck    int
	Paused   string // the note, with "paused" before it
	Orphaned bool
	Error    string // of the last failed run
	// Slots has a line for each stretch of the ledger: first, last, count,
	// outcome, reason.
	Slots []string
	// The times are compared only if Scenario.Times is set.
	LastRun, Next, Eligible time.Time
}

// names gives each run one that tells it from the others even if ids differ.
func (o *Outcome) names() {
	seen := map[string]int{}
	for i := range o.Runs {
		r := &o.Runs[i]
		seen[r.Flow]++
		switch {
		case r.Key != "":
			r.name = "run " + r.Flow + "/" + r.Key
		case !r.Slot.IsZero():
			if r.name = "run " + r.Flow + " of " + offset(r.Slot); r.Try > 0 {
				r.name += fmt.Sprintf(", try %d", r.Try)
			}
		default:
			r.name = fmt.Sprintf("run %s %d", r.Flow, seen[r.Flow])
		}
	}
}

// outcome reads the end state, of which the tables have been read already.
func (c *checker) outcome(tables map[string][]string) (*Outcome, error) {
	o := &Outcome{Tables: map[string][]string{}}
	c.readRuns(o)
	c.readFlows(o)
	for name, rows := range tables {
		if !strings.HasPrefix(name, "_segno_") {
			o.Tables[name] = rows
		}
	}
	o.names()
	o.forgetNonces()
	if len(c.faults) > 0 {
		return nil, c.faults[0]
	}
	return o, nil
}

func (c *checker) readRuns(o *Outcome) {
	byID := map[int64]int{}
	c.each(`SELECT r.run, f.id, r.nonce, coalesce(r.key, ''), r.slot, r.try, r.missed, r.status, r.state, r.data, r.visit, r.version,
	coalesce(r.cause, ''), coalesce(r.stuck_reason, r.error, ''), r.created, r.started, r.due, r.ended
FROM _segno_run r JOIN _segno_flow f USING (flow) ORDER BY f.id, r.slot, r.try, r.key, r.run`, func(scan func(...any) error) error {
		var r EndedRun
		err := scan(&r.id, &r.Flow, &r.nonce, &r.Key, at{&r.Slot}, &r.Try, &r.Missed, &r.Status, &r.State, &r.Data, &r.Visit, &r.Version,
			&r.Cause, &r.Error, at{&r.Created}, at{&r.Started}, at{&r.Due}, at{&r.Ended})
		r.Error = firstLine(r.Error)
		byID[r.id] = len(o.Runs)
		o.Runs = append(o.Runs, r)
		return err
	})
	c.each(`SELECT run, visit, kind, state, attempt, version, coalesce(error, ''), coalesce(data, '') FROM _segno_journal
WHERE kind <> 'crash' ORDER BY id`, func(scan func(...any) error) error {
		var run int64
		var visit, attempt, version int
		var kind, state, text, data string
		err := scan(&run, &visit, &kind, &state, &attempt, &version, &text, &data)
		r := &o.Runs[byID[run]]
		r.History = append(r.History, strings.TrimSpace(fmt.Sprintf("%d %s %s #%d v%d %s %s", visit, kind, state, attempt, version, firstLine(text), data)))
		return err
	})
}

func (c *checker) readFlows(o *Outcome) {
	byID := map[string]int{}
	c.each(`SELECT id, outcome, schedule, runs, streak, active + queued + later, stuck,
	CASE WHEN paused IS NULL THEN '' ELSE 'paused ' || coalesce(pause_note, '') END, orphaned IS NOT NULL,
	coalesce(last_error, ''), last_run, next, gate_until
FROM _segno_flow ORDER BY id`, func(scan func(...any) error) error {
		var f Flow
		err := scan(&f.ID, &f.Outcome, &f.Schedule, &f.Runs, &f.Streak, &f.Open, &f.Stuck, &f.Paused, &f.Orphaned,
			&f.Error, at{&f.LastRun}, at{&f.Next}, at{&f.Eligible})
		f.Error = firstLine(f.Error)
		byID[f.ID] = len(o.Flows)
		o.Flows = append(o.Flows, f)
		return err
	})
	c.each(`SELECT f.id, l.first, l.last, l.count, l.outcome || ' ' || coalesce(l.reason, '')
FROM _segno_ledger l JOIN _segno_flow f USING (flow) ORDER BY f.id, l.first`, func(scan func(...any) error) error {
		var id, outcome string
		var first, last time.Time
		var count int
		err := scan(&id, at{&first}, at{&last}, &count, &outcome)
		f := &o.Flows[byID[id]]
		f.Slots = append(f.Slots, strings.TrimSpace(fmt.Sprintf("%s..%s ×%d %s", offset(first), offset(last), count, outcome)))
		return err
	})
}

// tables returns the rows of every table as text, in order.
func (c *checker) tables() map[string][]string {
	names := []string{}
	c.each("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	out := map[string][]string{}
	for _, name := range names {
		out[name] = c.table(name)
	}
	return out
}

func (c *checker) table(name string) (lines []string) {
	rows, err := c.tx.Query(`SELECT * FROM "` + strings.ReplaceAll(name, `"`, `""`) + `"`)
	if err != nil {
		c.fault("table %s: %v", name, err)
		return nil
	}
	defer rows.Close()
	cols, err := rows.Columns()
	for err == nil && rows.Next() {
		values, dest := make([]any, len(cols)), make([]any, len(cols))
		for i := range values {
			dest[i] = &values[i]
		}
		err = rows.Scan(dest...)
		lines = append(lines, row(cols, values))
	}
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		c.fault("table %s: %v", name, err)
	}
	slices.Sort(lines)
	return lines
}

func row(cols []string, values []any) string {
	parts := make([]string, 0, len(cols))
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			v = string(b)
		}
		if v != nil {
			parts = append(parts, fmt.Sprintf("%s=%v", cols[i], v))
		}
	}
	return strings.Join(parts, " ")
}

// forgetNonces replaces the random part of idempotency keys, wherever it was
// written, by the run's name.
func (o *Outcome) forgetNonces() {
	var pairs []string
	for i := range o.Runs {
		pairs = append(pairs, o.Runs[i].nonce, "<"+o.Runs[i].name+">")
	}
	clean := strings.NewReplacer(pairs...).Replace
	for i := range o.Runs {
		r := &o.Runs[i]
		r.Data, r.Error = clean(r.Data), clean(r.Error)
		for j := range r.History {
			r.History[j] = clean(r.History[j])
		}
	}
	for _, rows := range o.Tables {
		for i := range rows {
			rows[i] = clean(rows[i])
		}
		slices.Sort(rows)
	}
}

// at scans a nullable time.
type at struct{ t *time.Time }

// Scan takes microseconds or NULL.
func (a at) Scan(v any) error {
	var n sql.NullInt64
	err := n.Scan(v)
	if n.Valid {
		*a.t = time.UnixMicro(n.Int64).UTC()
	}
	return err
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// offset is a time as the distance from the start of the bubble.
func offset(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Sub(Epoch).String()
}
