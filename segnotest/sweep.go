package segnotest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
)

// maxBroken is how many kills may go wrong before the sweep gives up.
const maxBroken = 3

// CrashSweep runs a scenario without a kill, and then once for every commit and
// each side of it, killed there. The dead incarnation's commits are refused
// from then on and its effects ignored; a new one goes on with the file. Each
// must end as the one without a kill: the same runs, with the same data and
// history; flows, slots and user tables alike; each effect as often, or once
// more. After each incarnation the file goes through Check.
//
// Every incarnation runs in a bubble of testing/synctest. A step that waits
// must therefore do so for time, for its context, or for something made in the
// bubble, and a dead incarnation's steps must return when their context ends.
// Commits are counted as they come; where several runs execute at the same
// time, their order may differ from one time to the next.
func CrashSweep(t *testing.T, s Scenario) {
	t.Helper()
	s.empty = emptyFile(t)
	base := play(t, &s, nil)
	switch {
	case base.wrong != nil:
		t.Fatalf("without a kill: %v", base.wrong)
	case base.commits == 0:
		t.Fatal("the scenario made no commit: got = 0, want > 0")
	case len(base.outcome.Runs) == 0:
		t.Fatal("the scenario had no run: got = 0, want > 0")
	}
	stride, broken, done := max(s.Stride, 1), 0, false
	// The order of commits may vary, and with it their number: the sweep is over
	// when a kill finds no commit any more.
	for k := 1; !done; k += stride {
		for _, after := range []bool{false, true} {
			v := play(t, &s, s.kills(k, after))
			done = done || v.crashes == 0 // behind the last commit
			if err := v.compare(base); err != nil {
				t.Errorf("killed %s (of %d):\n%v", v, base.commits, err)
				broken++
			}
		}
		if k > 10*base.commits+100 {
			t.Fatalf("killed incarnations commit on and on: got = %d commits and more, want about %d", k, base.commits)
		}
		if broken >= maxBroken {
			t.Fatal("too many failures; the rest is left out")
		}
	}
}

// emptyFile returns a database without flows, for every variant to begin with: to
// migrate a new one takes longer than most scenarios do.
func emptyFile(t *testing.T) (content []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "segno.db")
	synctest.Test(t, func(t *testing.T) {
		r, err := segno.New(path, segno.Options{SmallWAL: true}).Start(context.Background())
		if err == nil {
			err = r.Stop(context.Background())
		}
		if err == nil {
			content, err = os.ReadFile(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return content
}

// kills places the first kill as asked, and the others early behind it: there
// the file is recovered, at the latest.
func (s *Scenario) kills(commit int, after bool) []kill {
	kills := []kill{{commit, after}}
	for i := 1; i < s.Crashes; i++ {
		kills = append(kills, kill{1 + (commit+3*i)%9, (commit+i)%2 == 0})
	}
	return kills
}

// A variant is one way through the scenario.
type variant struct {
	s       *Scenario
	path    string
	rec     *recorder
	kills   []kill
	commits int      // of all incarnations
	since   int      // the last kill
	crashes int      // kills so far
	where   []string // what each was about to commit
	ends    []bool   // how each incarnation ended: by a kill?
	outcome *Outcome
	wrong   error // what went wrong, or what Scenario.Check says
	loose   map[string]bool
}

// String names the kills.
func (v *variant) String() string {
	var kills []string
	for i, where := range v.where {
		kills = append(kills, fmt.Sprintf("%s (%s)", v.kills[i], where))
	}
	if len(kills) == 0 {
		return "never"
	}
	return strings.Join(kills, ", then ")
}

// play runs the scenario once, in a bubble of its own.
func play(t *testing.T, s *Scenario, kills []kill) *variant {
	t.Helper()
	v := &variant{s: s, rec: newRecorder(), kills: kills}
	synctest.Test(t, func(t *testing.T) {
		v.path = filepath.Join(t.TempDir(), "segno.db")
		if err := os.WriteFile(v.path, s.empty, 0o600); err != nil {
			t.Fatal(err)
		}
		phases := s.phases()
		for i := 0; i < len(phases) && v.wrong == nil; {
			if v.live(&phases[i]) {
				i++
			}
		}
		if v.wrong == nil {
			v.finish()
		}
	})
	return v
}

// live is one incarnation; it reports whether it came to its end alive.
func (v *variant) live(p *Phase) bool {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	fx := &Effects{rec: v.rec, incarnation: len(v.ends) + 1}
	g := newGate(v, fx, end)
	err := v.program(ctx, g, p)
	killed := g.killed()
	v.ends = append(v.ends, killed)
	if killed {
		v.where = append(v.where, g.where)
		err = nil // whatever a dead one says
	}
	if err == nil {
		err = v.inspect(g)
	}
	if err != nil {
		v.wrong = fmt.Errorf("incarnation %d: %w", fx.incarnation, err)
	}
	return !killed
}

// inspect reads what the incarnation has left, which must be sound and, if it
// was killed, as it was then.
func (v *variant) inspect(g *gate) error {
	c, err := openChecker(v.path)
	if err != nil {
		return err
	}
	defer c.close()
	tables := c.tables()
	if changed := changes(g.left, tables); g.dead && changed != "" {
		return fmt.Errorf("a commit reached the file after the kill, in %s", changed)
	}
	if err := c.check(); err != nil {
		return err
	}
	if !g.dead {
		v.outcome, err = c.outcome(tables)
	}
	return err
}

// program starts the scheduler, does what the program does, and stops it.
func (v *variant) program(ctx context.Context, g *gate, p *Phase) error {
	r, err := v.start(g, p)
	if err != nil {
		return err
	}
	limit := v.s.Limit
	if limit == 0 {
		limit = 24 * time.Hour
	}
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not over after %v", limit))
	defer stop()
	if p.Drive != nil {
		err = p.Drive(ctx, r)
	}
	if err == nil && !p.LeaveOpen {
		err = settle(ctx, r)
	}
	return errors.Join(err, r.Stop(context.Background()))
}

// start makes a scheduler, and starts it as soon as the dead one's steps have
// come back and its lock is free.
func (v *variant) start(g *gate, p *Phase) (*segno.RunningScheduler, error) {
	var o segno.Options
	if v.s.Options != nil {
		o = v.s.Options(g.fx)
	}
	o.SmallWAL = true
	s := segno.New(v.path, o)
	if p.Register != nil {
		if err := p.Register(s, g.fx); err != nil {
			return nil, fmt.Errorf("Register: %w", err)
		}
	}
	ctx := crashpoint.With(context.Background(), g.commit)
	r, err := s.Start(ctx)
	for i := 0; errors.Is(err, segno.ErrLocked) && i < 600; i++ {
		time.Sleep(time.Second)
		r, err = s.Start(ctx)
	}
	return r, err
}

// settle waits until no run is open; a stuck one will not move by itself.
func settle(ctx context.Context, r *segno.RunningScheduler) error {
	open := []segno.RunStatus{segno.RunPending, segno.RunRunning, segno.RunParked, segno.RunWaiting, segno.RunUndoing}
	for {
		runs, err := r.Runs(ctx, segno.RunFilter{Status: open, Limit: 1000})
		if err != nil || len(runs) == 0 {
			return err
		}
		for _, run := range runs {
			info, err := r.WaitRun(ctx, run.ID)
			if err != nil && !info.Status.Ended() && !errors.Is(err, segno.ErrStuck) {
				info, _ = r.Run(context.WithoutCancel(ctx), run.ID)
				return fmt.Errorf("waiting for run %d, %s in %s: %w", run.ID, info.Status, info.State, err)
			}
		}
	}
}

// contents reads the whole file.
func (v *variant) contents() map[string][]string {
	c, err := openChecker(v.path)
	if err != nil {
		return map[string][]string{"no table": {err.Error()}}
	}
	defer c.close()
	return c.tables()
}

// changes names the tables that differ.
func changes(before, behind map[string][]string) string {
	var names []string
	for name := range behind {
		if !slices.Equal(before[name], behind[name]) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// finish makes up the outcome of the last incarnation's.
func (v *variant) finish() {
	o := v.outcome
	o.Crashes, o.Effects, v.loose = v.crashes, maps.Clone(v.rec.counts), v.rec.loose
	if v.s.Normalize != nil {
		v.s.Normalize(o)
	}
	if v.s.Check != nil {
		v.wrong = v.s.Check(o)
	}
}

// compare says what is wrong with a killed variant.
func (v *variant) compare(base *variant) error {
	if v.outcome == nil {
		return v.wrong
	}
	errs := []error{
		v.wrong,
		differs(v.outcome.facts(v.s.Times), base.outcome.facts(v.s.Times)),
		overdone(v.outcome, base.outcome, v.loose),
	}
	for i, killed := range v.ends {
		most := 0 // a clean stop repeats nothing
		if killed {
			most = max(v.s.Side, 1)
		}
		// A unit is settled by the commit behind it. If two of one run happen again,
		// the first was taken for settled before it was.
		for run, names := range v.rec.repeated(i + 1) {
			if len(names) > most {
				errs = append(errs, fmt.Errorf("run %d: units repeated behind incarnation %d: got = %d (%s), want at most %d",
					run, i+1, len(names), strings.Join(names, ", "), most))
			}
		}
	}
	return errors.Join(errs...)
}
