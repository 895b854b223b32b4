package segnotest

import (
	"context"
	"slices"
	"sync"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/engine"
)

// Effects count what steps do to the world outside of the file. In a CrashSweep
// each incarnation of the program has its own, and what a dead incarnation does
// is ignored. The zero value counts outside of a sweep, too.
type Effects struct {
	mu          sync.Mutex // guards what follows; shared by no other incarnation
	rec         *recorder
	incarnation int
	dead        bool
}

// Do counts the named effect. In a sweep it must happen as often as without
// the kill, and at most once more per kill; and of each run no more than one
// unit may be repeated over a kill. ctx is the step's. A name holds what makes
// the effect one of its own: the order, the attempt, in an Undo the rollback.
func (fx *Effects) Do(ctx context.Context, name string) { fx.record(ctx, name, false) }

// Repeat counts an effect that a crash may repeat any number of times: one of a
// poll faster than Options.ParkAfter, say.
func (fx *Effects) Repeat(ctx context.Context, name string) { fx.record(ctx, name, true) }

// Count returns how often the named effect has happened so far, over all incarnations.
func (fx *Effects) Count(name string) int {
	rec := fx.recorder()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.counts[name]
}

// Incarnation says which start of the program this is: 1 for the first.
func (fx *Effects) Incarnation() int { return fx.incarnation }

// Alive reports whether the incarnation has not been killed yet: a fake of
// another system does nothing for a dead one.
func (fx *Effects) Alive() bool {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	return !fx.dead
}

// Once writes the named effect to the table segnotest_once, in a function given
// to OnCommit or Write. In a sweep it must be there exactly as often as without
// the kill.
func Once(tx segno.Tx, name string) error {
	_, err := tx.Exec("CREATE TABLE IF NOT EXISTS segnotest_once (name TEXT NOT NULL) STRICT")
	if err == nil {
		_, err = tx.Exec("INSERT INTO segnotest_once (name) VALUES (?)", name)
	}
	return err
}

func (fx *Effects) kill() {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	fx.dead = true
}

func (fx *Effects) recorder() *recorder {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	if fx.rec == nil {
		fx.rec = newRecorder()
	}
	return fx.rec
}

func (fx *Effects) record(ctx context.Context, name string, loose bool) {
	rec := fx.recorder()
	fx.mu.Lock()
	defer fx.mu.Unlock()
	if fx.dead {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.counts[name]++
	if loose {
		rec.loose[name] = true
		return
	}
	if v := engine.VisitFrom(ctx); v != nil {
		rec.note(v.Info(), name, fx.incarnation)
	}
}

// recorder is what all incarnations of one program have done.
type recorder struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int
	loose  map[string]bool
	units  map[int64]map[unit][]happening
}

// unit is the smallest piece of a run that a crash may repeat.
type unit struct {
	visit, polls, attempt int
	part                  string
	undo                  bool
}

type happening struct {
	name        string
	incarnation int
}

func newRecorder() *recorder {
	return &recorder{counts: map[string]int{}, loose: map[string]bool{}, units: map[int64]map[unit][]happening{}}
}

func (r *recorder) note(in engine.Info, name string, incarnation int) {
	if r.units[in.Run] == nil {
		r.units[in.Run] = map[unit][]happening{}
	}
	u := unit{visit: in.Visit, polls: in.Polls, attempt: in.Attempt, part: in.Unit, undo: in.UndoOf != ""}
	r.units[in.Run][u] = append(r.units[in.Run][u], happening{name, incarnation})
}

// repeated returns, for the end of the given incarnation, what happened both
// before and behind it: by run, one name for each unit.
func (r *recorder) repeated(incarnation int) map[int64][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[int64][]string{}
	for run, units := range r.units {
		for _, done := range units {
			if name, again := acrossEnd(done, incarnation); again {
				out[run] = append(out[run], name)
			}
		}
		slices.Sort(out[run])
	}
	return out
}

// acrossEnd finds an effect that happened on both sides of an incarnation's end.
func acrossEnd(done []happening, incarnation int) (name string, found bool) {
	before := map[string]bool{}
	for _, h := range done {
		if h.incarnation <= incarnation {
			before[h.name] = true
		}
	}
	for _, h := range done {
		if h.incarnation > incarnation && before[h.name] {
			return h.name, true
		}
	}
	return "", false
}
