package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno/engine"
)

// A slice is a Journal in memory: the contract of engine.Journal and no more.
type slice struct {
	mu      sync.Mutex
	head    engine.Head
	entries []engine.Entry
	memos   map[string]string
	cancel  bool
	commits int
	die     int  // at this commit, from 1; 0: never
	after   bool // having made it
	dead    bool
}

var (
	errDead     = errors.New("test: dead")
	errConflict = errors.New("test: the run has moved on")
)

// begin is a journal with one held run at the start of the machine.
func begin(m *engine.Machine, data string) *slice {
	now := clock()
	s := &slice{memos: map[string]string{}}
	s.head = engine.Head{
		Run: 1, Flow: "f", Seq: 1, Status: engine.Running, Held: true, Version: m.Version, Nonce: "nonce", State: m.Initial,
		Visit: 1, Attempt: 1, Data: []byte(data), Created: now, Entered: now, Started: now, First: 1, Last: 1,
	}
	if m.Timeout > 0 {
		s.head.Deadline = now.Add(m.Timeout)
	}
	s.entries = []engine.Entry{{ID: 1, Run: 1, Visit: 1, Kind: engine.KindEnter, State: m.Initial, Attempt: 1, At: now, Data: []byte(data)}}
	return s
}

func (s *slice) Commit(_ context.Context, c *engine.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	if s.cancel && !c.Yields {
		return engine.ErrCancelRequested
	}
	if c.Before.Seq != s.head.Seq {
		return errConflict
	}
	for _, fn := range c.OnCommit {
		if err := fn(nil); err != nil {
			return &engine.OnCommitError{Err: err}
		}
	}
	s.commits++
	if s.commits == s.die && !s.after {
		s.dead = true
		return errDead
	}
	h := c.After
	h.Seq, h.Last = s.head.Seq+1, s.head.Last
	for _, e := range c.Entries {
		e.ID, e.Run, e.Version, e.Prev = int64(len(s.entries)+1), h.Run, h.Version, h.Last
		h.Last = e.ID
		if e.Undo != "" {
			e.PrevUndo, h.UndoAt = h.UndoAt, e.ID
		}
		s.entries = append(s.entries, e)
	}
	for key, value := range c.Memos {
		s.memos[fmt.Sprintf("%d/%s", h.Visit, key)] = string(value)
	}
	if c.DropMemos {
		maps.DeleteFunc(s.memos, func(key, _ string) bool { return strings.HasPrefix(key, fmt.Sprintf("%d/", c.Before.Visit)) })
	}
	s.head = h
	if s.commits == s.die {
		s.dead = true
		return errDead
	}
	c.After.Seq, c.After.Last, c.After.UndoAt = h.Seq, h.Last, h.UndoAt
	return nil
}

func (s *slice) Save(_ context.Context, h *engine.Head, memos map[string][]byte, _ []func(engine.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	for key, value := range memos {
		s.memos[fmt.Sprintf("%d/%s", h.Visit, key)] = string(value)
	}
	return nil
}

func (s *slice) Take(context.Context, *engine.Head, string, string) ([]byte, bool, error) {
	return nil, false, nil
}

func (s *slice) Run(context.Context, int64) (engine.Head, error) { return engine.Head{}, errConflict }

func (s *slice) Memos(_ context.Context, h *engine.Head) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	memos := map[string][]byte{}
	for key, value := range s.memos {
		if name, ok := strings.CutPrefix(key, fmt.Sprintf("%d/", h.Visit)); ok {
			memos[name] = []byte(value)
		}
	}
	return memos, nil
}

func (s *slice) Entry(_ context.Context, id int64) (engine.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[id-1], nil
}

func (s *slice) Undone(context.Context, *engine.Head) (map[int]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := map[int]bool{}
	for _, e := range s.entries {
		if e.Kind == engine.KindUndone {
			done[e.Visit] = true
		}
	}
	return done, nil
}

// log is the journal in short.
func (s *slice) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	for _, e := range s.entries {
		words = append(words, fmt.Sprintf("%s %s", e.Kind, e.State))
	}
	return strings.Join(words, ", ")
}

func clock() time.Time { return time.Now().Round(0).UTC().Truncate(time.Microsecond) }

// machinery is an engine over a journal, with the defaults of the options.
func machinery(s *slice) *engine.Engine {
	e := &engine.Engine{
		Journal: s, Now: clock, Grace: 5 * time.Second, AbandonAfter: time.Minute, ParkAfter: time.Second, MaxData: 1 << 20, MaxCrashes: 5,
	}
	return e
}

// drive runs the journal's run to wherever it goes, waking it when it is parked.
func drive(t *testing.T, s *slice, m *engine.Machine) (engine.Head, error) {
	t.Helper()
	for {
		h, err := machinery(s).Begin(context.Background(), m, s.head).Drive()
		if err != nil || h.Status.Ended() || h.Status == engine.Stuck || h.Status == engine.Pending {
			return h, err
		}
		time.Sleep(max(h.Wake.Sub(clock()), 0))
		s.claim()
	}
}

// claim holds the run again, as the scheduler does when it is due.
func (s *slice) claim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head.Held = true
	s.head.Seq++
	if s.head.Status != engine.Undoing {
		s.head.Status = engine.Running
	}
}

// resume is what recovery does to a held run.
func (s *slice) resume() {
	s.die, s.dead = 0, false
	s.claim()
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got = %v, want %v", what, got, want)
	}
}

// effects counts what steps do to the world.
type effects struct {
	mu sync.Mutex
	n  map[string]int
}

func (e *effects) happen(what string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == nil {
		e.n = map[string]int{}
	}
	e.n[what]++
	return e.n[what]
}

var errStep = errors.New("test: step")

// goTo is a Do that has an effect and goes to next, having appended its name to
// the data.
func goTo(world *effects, name, next string) func(context.Context, []byte) (string, []byte, error) {
	return func(_ context.Context, data []byte) (string, []byte, error) {
		world.happen(name)
		return next, append(append([]byte{}, data...), name...), nil
	}
}

// scenarios are machines that end by themselves, whenever they are killed.
func scenarios(world *effects) map[string]*engine.Machine {
	final := &engine.Step{Final: true}
	undo := func(name string) func(context.Context, []byte) error {
		return func(_ context.Context, data []byte) error {
			world.happen("undo " + name + ":" + string(data))
			return nil
		}
	}
	fails := func(name string, times int) func(context.Context, []byte) (string, []byte, error) {
		return func(ctx context.Context, data []byte) (string, []byte, error) {
			if world.happen(name); engine.VisitFrom(ctx).Info().Attempt <= times {
				return "", nil, errStep
			}
			return "end", append(append([]byte{}, data...), name...), nil
		}
	}
	return map[string]*engine.Machine{
		"plain": {Initial: "a", Steps: map[string]*engine.Step{
			"a": {Do: goTo(world, "a", "b")}, "b": {Do: goTo(world, "b", "c")}, "c": {Do: goTo(world, "c", "end")}, "end": final,
		}},
		"retry": {Initial: "a", Steps: map[string]*engine.Step{
			"a": {Do: fails("a", 2), Retry: engine.Retry{Attempts: 3, Initial: 10 * time.Second}}, "end": final,
		}},
		"rollback": {Initial: "a", Steps: map[string]*engine.Step{
			"a": {Do: goTo(world, "a", "b"), Undo: undo("a")}, "b": {Do: goTo(world, "b", "c"), Undo: undo("b")}, "c": {Do: fails("c", 9)}, "end": final,
		}},
		"snooze": {Initial: "a", Steps: map[string]*engine.Step{
			"a": {Do: func(_ context.Context, data []byte) (string, []byte, error) {
				world.happen("a" + string(data))
				if len(data) < 3 {
					return "", append(append([]byte{}, data...), 'x'), &engine.Steer{Snooze: true, After: time.Minute}
				}
				return "end", data, nil
			}}, "end": final,
		}},
		"undo fails": {Initial: "a", Steps: map[string]*engine.Step{
			"a": {Do: goTo(world, "a", "b"), Undo: undo("a")},
			"b": {Do: goTo(world, "b", "c"), Undo: func(context.Context, []byte) error { world.happen("undo b"); return errStep }},
			"c": {Do: fails("c", 9)}, "end": final,
		}},
	}
}

func TestARunKilledAtAnyCommitEndsTheSame(t *testing.T) {
	for name := range scenarios(new(effects)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := new(effects)
				m := scenarios(world)[name]
				s := begin(m, "")
				want, err := drive(t, s, m)
				if err != nil || s.commits == 0 {
					t.Fatalf("undisturbed: got error %v with %d commits, want none and some", err, s.commits)
				}
				for die := 1; die <= s.commits; die++ {
					for _, after := range []bool{false, true} {
						again := new(effects)
						m := scenarios(again)[name]
						k := begin(m, "")
						k.die, k.after = die, after
						if _, err := drive(t, k, m); !errors.Is(err, errDead) {
							t.Fatalf("killed at commit %d: got error %v, want %v", die, err, errDead)
						}
						h := k.head
						if !h.Status.Ended() {
							k.resume()
							if h, err = drive(t, k, m); err != nil {
								t.Fatalf("resumed: got error %v, want none", err)
							}
						}
						what := fmt.Sprintf("killed at commit %d, made = %v: ", die, after)
						expect(t, what+"status", h.Status, want.Status)
						expect(t, what+"state", h.State, want.State)
						expect(t, what+"data", string(h.Data), string(want.Data))
						expect(t, what+"error", h.Error, want.Error)
						expect(t, what+"log", k.log(), s.log())
						extra := 0
						for effect, n := range again.n {
							extra += n - world.n[effect]
							expect(t, what+effect+" happened more than once more", n > world.n[effect]+1, false)
						}
						wanted := 1
						if after {
							wanted = 0
						}
						expect(t, what+"repeated effects", extra <= wanted && extra >= 0, true)
					}
				}
			})
		})
	}
}
