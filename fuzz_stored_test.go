package segno

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segnodev/segno/engine"
)

type (
	fuzzState string
	fuzzData  struct {
		N     int
		Text  string
		At    time.Time
		Parts map[string][]byte
	}
)

const fuzzDone fuzzState = "done"

// A fuzzMemo is a value that a state keeps in the file, with what it is read into.
type fuzzMemo struct {
	state fuzzState
	key   string
	late  bool // it is read behind a call of the user's code
	into  func() any
	good  string            // a value that the state goes on with
	other map[string]string // that are there, too
}

func fuzzOf[T any]() any { return new(T) }

// fuzzMemos are all that the processing models keep, and one of a user's own.
var fuzzMemos = []fuzzMemo{
	{"own", "mine", true, fuzzOf[int], `3`, nil},
	{"poll", pollErrors, true, fuzzOf[int], `1`, nil},
	{"timer", timerDue, false, fuzzOf[time.Time], `"2000-01-01T00:00:00Z"`, nil},
	{"sleep", sleepSet, false, fuzzOf[bool], `true`, nil},
	{"batch", batchMemo + ".1", false, fuzzOf[[]json.RawMessage], `[1,2,4]`, nil},
	{"batch", batchMemo + ".before", false, fuzzOf[int], `0`, nil},
	{"batch", batchMemo + ".1/1", false, fuzzOf[unitState], `{"done":true,"value":7}`, map[string]string{batchMemo + ".1": `[1,2]`}},
	{"split", splitMemo + ".before", false, fuzzOf[int], `0`, nil},
	{"split", splitMemo + ".1", false, fuzzOf[time.Time], `"2100-01-01T00:00:00Z"`, nil},
	{"split", splitMemo + ".1/0", false, fuzzOf[unitState], `{"error":"no","cause":"error","attempt":2}`, nil},
	{"stepped", steppedMemo, false, fuzzOf[cursor], `{"n":2,"c":{"at":2}}`, nil},
	{"stream", streamMemo, false, fuzzOf[streamState], `{"n":1,"c":1}`, nil},
	{"await", awaitPayload, false, fuzzOf[json.RawMessage], `5`, nil},
	{"await", awaitUntil, false, fuzzOf[time.Time], `"2000-01-01T00:00:00Z"`, nil},
}

// fuzzWork is what the states of the workflow do; calls counts what they call.
type fuzzWork struct {
	calls atomic.Int32
	polls sync.Map // by run: *atomic.Int32
}

func (w *fuzzWork) number(_ context.Context, i int) (int, error) {
	if w.calls.Add(1); i%2 != 0 {
		return 0, errors.New("odd")
	}
	return i, nil
}

func (w *fuzzWork) done(context.Context, *fuzzData) (fuzzState, error) {
	w.calls.Add(1)
	return fuzzDone, nil
}

func (w *fuzzWork) own(ctx context.Context, _ *fuzzData) (fuzzState, error) {
	w.calls.Add(1)
	_, _, err := LoadMemo[int](ctx, "mine")
	return fuzzDone, err
}

func (w *fuzzWork) poll(ctx context.Context, _ *fuzzData) (fuzzState, time.Duration, error) {
	w.calls.Add(1)
	if n, _ := w.polls.LoadOrStore(InfoFrom(ctx).Run, new(atomic.Int32)); n.(*atomic.Int32).Add(1) < 3 {
		return "", 0, errors.New("not there")
	}
	return fuzzDone, 0, nil
}

func (w *fuzzWork) stepped(_ context.Context, _ *fuzzData, c *struct{ At int }) (fuzzState, bool, error) {
	c.At++
	return fuzzDone, w.calls.Add(1) < 3, nil
}

func (w *fuzzWork) source() Source[fuzzState, fuzzData, int, int, int] {
	return Source[fuzzState, fuzzData, int, int, int]{
		Open: func(_ context.Context, _ fuzzData, _ *int) (iter.Seq2[int, error], error) {
			return func(yield func(int, error) bool) { _ = yield(2, nil) && yield(3, nil) }, nil
		},
		Item: func(_ context.Context, i int) (int, int, error) { w.calls.Add(1); return i, i, nil },
		Flush: func(context.Context, *fuzzData, []int) (fuzzState, bool, error) {
			w.calls.Add(1)
			return "", false, nil
		},
		Close:   w.done,
		OnError: SkipItem,
	}
}

func (w *fuzzWork) all(ctx context.Context, d *fuzzData, _ []Settled[int]) (fuzzState, error) {
	return w.done(ctx, d)
}

// workflow has a state for each processing model, and one to be undone.
func (w *fuzzWork) workflow() Workflow[fuzzState, fuzzData] {
	twice := Retry{Attempts: 2, Initial: time.Millisecond, Jitter: -1}
	branch := func(i int) func(context.Context, fuzzData) (int, error) {
		return func(ctx context.Context, _ fuzzData) (int, error) { return w.number(ctx, i) }
	}
	return Workflow[fuzzState, fuzzData]{Initial: "own", Steps: Steps[fuzzState, fuzzData]{
		"own":   {Do: w.own, Retry: twice, Undo: func(context.Context, fuzzData) error { w.calls.Add(1); return nil }},
		"poll":  {Do: Poll(w.poll, PollOptions{Tolerate: 3})},
		"timer": {Do: Timer(func(context.Context, *fuzzData) (time.Time, error) { w.calls.Add(1); return time.Unix(1, 0), nil }, w.done)},
		"sleep": {Do: Sleep[fuzzData](time.Second, fuzzDone)},
		"batch": {Do: Batch(func(context.Context, fuzzData) ([]int, error) { w.calls.Add(1); return []int{2}, nil },
			w.number, w.all, BatchOptions{Retry: twice})},
		"split":   {Do: Split(Join{Mode: Any, Timeout: time.Hour, Bulkhead: 1, Retry: twice}, w.all, branch(1), branch(2))},
		"stepped": {Do: Stepped(w.stepped)},
		"stream":  {Do: Stream(w.source())},
		"await": {Timeout: time.Hour, Do: Await("go", func(ctx context.Context, d *fuzzData, _ int) (fuzzState, error) {
			return w.done(ctx, d)
		}, AwaitOptions[fuzzState, fuzzData]{OnTimeout: w.done})},
		fuzzDone: {Final: true},
	}}
}

// fuzzJournal is a file of one run, in memory.
type fuzzJournal struct {
	engine.Journal
	head    engine.Head
	entries []engine.Entry
	memos   map[string][]byte
	signal  []byte
}

func (j *fuzzJournal) Commit(_ context.Context, c *engine.Change) error {
	for key, value := range c.Memos {
		j.memos[key] = value
	}
	if c.DropMemos {
		clear(j.memos)
	}
	j.entries = append(j.entries, c.Entries...)
	c.After.Seq = c.Before.Seq + 1
	j.head = c.After
	return nil
}

func (j *fuzzJournal) Save(_ context.Context, _ *engine.Head, memos map[string][]byte, _ []func(engine.Tx) error) error {
	for key, value := range memos {
		j.memos[key] = value
	}
	return nil
}

func (j *fuzzJournal) Memos(context.Context, *engine.Head) (map[string][]byte, error) {
	known := map[string][]byte{}
	for key, value := range j.memos {
		known[key] = value
	}
	return known, nil
}

func (j *fuzzJournal) Take(_ context.Context, _ *engine.Head, _, memo string) ([]byte, bool, error) {
	payload := j.signal
	if j.signal = nil; payload != nil {
		j.memos[memo] = payload
	}
	return payload, payload != nil, nil
}

func (j *fuzzJournal) Entry(_ context.Context, id int64) (engine.Entry, error) {
	return j.entries[id-1], nil
}

// fuzzLives is how often a run is taken up again before it is taken for one
// that waits.
const fuzzLives = 40

// resume goes on with the run as the dispatcher does, at whatever time it is due.
func (j *fuzzJournal) resume(t *testing.T, w *fuzzWork) engine.Head {
	t.Helper()
	def, err := w.workflow().compile()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	e := &engine.Engine{
		Journal: j, Now: func() time.Time { return now }, Grace: time.Second, AbandonAfter: time.Second, ParkAfter: 1, MaxData: 1 << 20, MaxCrashes: 5,
	}
	for range fuzzLives {
		h := j.head
		if h.Status != engine.Undoing {
			h.Status = engine.Running
		}
		h.Held, h.Started = true, now
		if _, err := e.Begin(context.Background(), def.machine, h).Drive(); err != nil {
			t.Fatalf("Drive: %v", err)
		}
		if h = j.head; h.Status.Ended() || h.Status == engine.Stuck {
			return h
		}
		if h.Due.After(now) && h.Due.Year() < 3000 {
			now = h.Due
		}
	}
	return j.head
}

// fuzzRun is a file with a run in a state.
func fuzzRun(state fuzzState, data []byte, memos map[string][]byte) *fuzzJournal {
	h := engine.Head{Run: 7, Seq: 2, Flow: "f", Status: engine.Running, Nonce: "n", State: string(state), Visit: 1, Attempt: 1, Data: data,
		Entered: time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC)}
	return &fuzzJournal{head: h, memos: memos}
}

// FuzzStoredRun resumes runs whose data, and what a processing model has kept of
// its visit, are any bytes. What cannot be decoded makes the run stuck, with
// nothing of it changed, so that it goes on once a person has repaired it; what
// can be decoded leads to no panic.
func FuzzStoredRun(f *testing.F) {
	for i, m := range fuzzMemos {
		for _, memo := range []string{m.good, ``, `null`, `{`, `"\xff"`, `[null,{}]`, `-9223372036854775808`, `1e99`,
			`{"n":-5,"c":{"at":"x"}}`, `{"done":true}`, `{"done":true,"value":"x"}`,
			`{"attempt":9223372036854775807,"delay":-1}`, `{"attempt":-9,"due":"9999-12-31T23:59:59Z","delay":9223372036854775807}`} {
			f.Add(uint8(i), []byte(`{"N":1}`), []byte(memo))
		}
	}
	f.Add(uint8(0), []byte(`{"N":"many"}`), []byte(`3`))
	f.Add(uint8(0), []byte("\x00"), []byte(`3`))
	f.Fuzz(func(t *testing.T, which uint8, data, memo []byte) {
		m, w := fuzzMemos[int(which)%len(fuzzMemos)], new(fuzzWork)
		j := fuzzRun(m.state, data, m.memos(memo))
		h := j.resume(t, w)
		badData, badMemo := json.Unmarshal(data, new(fuzzData)) != nil, json.Unmarshal(memo, m.into()) != nil
		switch {
		case h.Cause == engine.CausePanic:
			t.Fatalf("%s %q: got = a panic: %s", m.key, memo, h.Error)
		case badData || badMemo:
			if h.Status != engine.Stuck || !strings.Contains(h.StuckReason, engine.ErrUndecodable.Error()) {
				t.Fatalf("data %q, %s %q: got = %s %q %q, want stuck", data, m.key, memo, h.Status, h.StuckReason, h.Error)
			}
			if w.calls.Load() > 0 && (badData || !m.late) {
				t.Errorf("data %q, %s %q: calls: got = %d, want none", data, m.key, memo, w.calls.Load())
			}
		case h.Status == engine.Stuck && !strings.Contains(h.StuckReason, engine.ErrUndecodable.Error()):
			t.Errorf("%s %q: got = stuck, %s", m.key, memo, h.StuckReason)
		}
		if h.Status == engine.Stuck {
			j.repaired(t, m, string(data), memo)
		}
	})
}

// memos is what the file has of the visit.
func (m *fuzzMemo) memos(memo []byte) map[string][]byte {
	memos := map[string][]byte{m.key: memo}
	for key, value := range m.other {
		memos[key] = []byte(value)
	}
	return memos
}

// repaired puts a stuck run right and lets it go on, to its end.
func (j *fuzzJournal) repaired(t *testing.T, m fuzzMemo, data string, memo []byte) {
	t.Helper()
	if !sameData(string(j.head.Data), data) || string(j.memos[m.key]) != string(memo) || j.head.State != string(m.state) {
		t.Errorf("data %q, %s %q: got = %q, %q in %s, want all as it was", data, m.key, memo, j.head.Data, j.memos[m.key], j.head.State)
	}
	j.head.Data, j.memos[m.key] = []byte(`{}`), []byte(m.good)
	j.head.StuckReason = ""
	if h := j.resume(t, new(fuzzWork)); h.Status != engine.Completed {
		t.Errorf("%s %q, repaired: got = %s %s%s, want completed", m.key, memo, h.Status, h.Error, h.StuckReason)
	}
}

// sameData reports whether two texts are the same, or are read as the same data.
func sameData(a, b string) bool {
	var x, y fuzzData
	return a == b || json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// FuzzStoredSignal gives any bytes as the payload of a signal. One that is no
// int fails the visit, for good.
func FuzzStoredSignal(f *testing.F) {
	for _, payload := range []string{`5`, `"5"`, ``, `null`, `5 5`, "\xff\x00", `99999999999999999999`, `{"a":[`} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		j, want := fuzzRun("await", []byte(`{}`), map[string][]byte{}), engine.Completed
		if j.signal = append([]byte{}, payload...); json.Unmarshal(payload, new(int)) != nil {
			want = engine.Failed
		}
		h := j.resume(t, new(fuzzWork))
		if h.Status != want || h.Cause == engine.CausePanic || want == engine.Failed && !strings.Contains(h.Error, `signal "go": its payload is no int`) {
			t.Errorf("payload %q: got = %s, %s %s, want %s", payload, h.Status, h.Error, h.StuckReason, want)
		}
	})
}

// FuzzStoredUndo rolls back a visit whose data, as the history has it, is any
// bytes. What cannot be decoded is a failed undo, of that visit only.
func FuzzStoredUndo(f *testing.F) {
	for _, data := range []string{`{}`, `{"N":"x"}`, ``, `null`, "\xff", `{"At":"noon"}`, `{"Parts":{"a":"!"}}`} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		j, w := fuzzRun("poll", []byte(`{}`), map[string][]byte{}), new(fuzzWork)
		j.entries = []engine.Entry{
			{ID: 1, Run: 7, Visit: 2, Kind: engine.KindEnter, State: "own", Undo: "own", Data: []byte(`{"N":1}`)},
			{ID: 2, Run: 7, Visit: 3, Kind: engine.KindEnter, State: "poll", Undo: "own", Data: data, PrevUndo: 1},
		}
		j.head.Status, j.head.Visit, j.head.UndoAt, j.head.Cause, j.head.Error = engine.Undoing, 3, 2, engine.CauseError, "no"
		want, calls := engine.Failed, int32(2)
		if json.Unmarshal(data, new(fuzzData)) != nil {
			want, calls = engine.UndoFailed, 1
		}
		if h := j.resume(t, w); h.Status != want || w.calls.Load() != calls {
			t.Errorf("data %q: got = %s with %d undos, want %s with %d", data, h.Status, w.calls.Load(), want, calls)
		}
	})
}
