package store

import (
	"database/sql"
	"time"
)

// A Flow is the durable state of one flow. The writer keeps every flow in
// memory and writes a changed one once per batch.
type Flow struct {
	num        int64
	dirty      bool
	ID         string
	Position   int
	Schedule   string
	Registered time.Time
	Orphaned   time.Time
	Anchor     time.Time
	Cursor     time.Time // the last slot decided
	Next       time.Time // the next slot that may be dispatched; zero: none
	Outcome    string    // idle, completed, backoff, tripped
	Runs       int64
	LastRun    time.Time
	LastError  string
	Streak     int
	GateSet    time.Time
	GateDelay  time.Duration
	GateUntil  time.Time
	Paused     time.Time
	PauseNote  string
	PauseActor string
	PauseUntil time.Time
	Active     int // running, parked, waiting, undoing
	Queued     int // pending now
	Later      int // pending at a time to come
	Stuck      int
	Fired      int       // slots that fired
	RetrySlot  time.Time // the slot that failed and is to be tried again
	RetryTry   int       // and which try that will be
	Skips      int       // slots that are to be skipped
}

// Open counts the open runs that an overlap policy looks at.
func (f *Flow) Open(serial bool) int {
	n := f.Active + f.Queued
	if serial {
		n += f.Stuck
	}
	return n
}

// EndPause ends a pause.
func (f *Flow) EndPause() {
	f.Paused, f.PauseUntil, f.PauseNote, f.PauseActor = time.Time{}, time.Time{}, "", ""
}

// Gate returns when the backoff gate opens: never later than its delay from
// now, whatever the wall clock did.
func (f *Flow) Gate(now time.Time) time.Time {
	if limit := now.Add(f.GateDelay); f.GateUntil.After(limit) {
		return limit
	}
	return f.GateUntil
}

// ClampGate shortens the gate to its delay from now, if a clock that was set
// back has made it longer: without that it would move along with the time.
func (f *Flow) ClampGate(now time.Time) {
	if gate := f.Gate(now); !gate.Equal(f.GateUntil) {
		f.GateSet, f.GateUntil = now, gate
	}
}

const flowColumns = `id, position, schedule, registered, orphaned, anchor, cursor, next, outcome, runs, last_run,
	last_error, streak, gate_set, gate_delay, gate_until, paused, pause_note, pause_actor, pause_until,
	active, queued, later, stuck, fired, retry_slot, retry_try, skips`

// values returns the columns of flowColumns.
func (f *Flow) values() []any {
	return []any{
		f.ID, f.Position, f.Schedule, micros(f.Registered), micros(f.Orphaned), micros(f.Anchor), micros(f.Cursor),
		micros(f.Next), f.Outcome, f.Runs, micros(f.LastRun), text(f.LastError), f.Streak, micros(f.GateSet),
		span(f.GateDelay), micros(f.GateUntil), micros(f.Paused), text(f.PauseNote), text(f.PauseActor),
		micros(f.PauseUntil), f.Active, f.Queued, f.Later, f.Stuck, f.Fired, micros(f.RetrySlot), f.RetryTry, f.Skips,
	}
}

// The ways to write a flow: a new one, any change, what a slot changes, and what a
// run does on its way to the end. Of the columns of an index the last two have
// none but next, and none; and none that is checked, which takes a table of what
// it may be.
var (
	addFlowSQL   = "INSERT INTO _segno_flow (flow, " + flowColumns + ") VALUES (" + marks(29) + ")"
	putFlowSQL   = "UPDATE _segno_flow SET (" + flowColumns + ") = (" + marks(28) + ") WHERE flow = ?"
	moveFlowSQL  = "UPDATE _segno_flow SET cursor = ?, next = ?, runs = ?, last_run = ?, active = ?, queued = ?, fired = ? WHERE flow = ?"
	countFlowSQL = "UPDATE _segno_flow SET runs = ?, last_run = ?, active = ?, queued = ? WHERE flow = ?"
)

// update returns the cheapest statement that turns was into the flow.
func (f *Flow) update(was *Flow) (query string, args []any) {
	moved := *was
	moved.Runs, moved.LastRun, moved.Active, moved.Queued = f.Runs, f.LastRun, f.Active, f.Queued
	if moved == *f {
		return countFlowSQL, []any{f.Runs, micros(f.LastRun), f.Active, f.Queued, f.num}
	}
	moved.Cursor, moved.Next, moved.Fired = f.Cursor, f.Next, f.Fired
	if moved == *f {
		return moveFlowSQL, []any{micros(f.Cursor), micros(f.Next), f.Runs, micros(f.LastRun), f.Active, f.Queued, f.Fired, f.num}
	}
	return putFlowSQL, append(f.values(), f.num)
}

// scan reads the columns of flowColumns, behind the flow's number.
func (f *Flow) scan(row interface{ Scan(...any) error }) error {
	return row.Scan(&f.num,
		&f.ID, &f.Position, &f.Schedule, at{&f.Registered}, at{&f.Orphaned}, at{&f.Anchor}, at{&f.Cursor},
		at{&f.Next}, &f.Outcome, &f.Runs, at{&f.LastRun}, str{&f.LastError}, &f.Streak, at{&f.GateSet},
		dur{&f.GateDelay}, at{&f.GateUntil}, at{&f.Paused}, str{&f.PauseNote}, str{&f.PauseActor},
		at{&f.PauseUntil}, &f.Active, &f.Queued, &f.Later, &f.Stuck, &f.Fired, at{&f.RetrySlot}, &f.RetryTry, &f.Skips)
}

// micros is how a time is stored: microseconds UTC, NULL for none.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// span is how a duration is stored: microseconds, NULL for none.
func span(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return d.Microseconds()
}

// text is how an optional text is stored: NULL for none.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// number is how an optional number is stored: NULL for none.
func number(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// at, dur, str and blob scan nullable columns into plain Go values.
type (
	at    struct{ t *time.Time }
	dur   struct{ d *time.Duration }
	str   struct{ s *string }
	blob  struct{ b *[]byte }
	num   struct{ n *int64 }
	count struct{ n *int }
)

func (a at) Scan(v any) error {
	if n, ok := v.(int64); ok {
		*a.t = time.UnixMicro(n).UTC()
	}
	return nil
}

func (d dur) Scan(v any) error {
	if n, ok := v.(int64); ok {
		*d.d = time.Duration(n) * time.Microsecond
	}
	return nil
}

func (s str) Scan(v any) error {
	if t, ok := v.(string); ok {
		*s.s = t
		return nil
	}
	var n sql.NullString
	err := n.Scan(v)
	*s.s = n.String
	return err
}

func (b blob) Scan(v any) error {
	switch v := v.(type) {
	case string:
		*b.b = []byte(v)
	case []byte:
		*b.b = append([]byte(nil), v...)
	}
	return nil
}

func (c count) Scan(v any) error {
	if i, ok := v.(int64); ok {
		*c.n = int(i)
	}
	return nil
}

func (n num) Scan(v any) error {
	if i, ok := v.(int64); ok {
		*n.n = i
	}
	return nil
}
