package segnotest

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/engine"
)

// program is a scenario of one flow "f" of two steps, with a way to go wrong.
func program(do func(ctx context.Context, fx *Effects, n *int) error) Scenario {
	return Scenario{
		Register: func(s *segno.Scheduler, fx *Effects) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: segno.Workflow[phase, int]{Initial: "a", Steps: steps{
				"a":    {Do: func(ctx context.Context, n *int) (phase, error) { return "b", do(ctx, fx, n) }},
				"b":    {Do: segno.Sleep[int](time.Minute, phase("done"))},
				"done": {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			_, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			return err
		},
		Limit: time.Hour,
	}
}

// faults sweeps the scenario and returns what is found first.
func faults(t *testing.T, s Scenario) string {
	t.Helper()
	base := play(t, &s, nil)
	if base.wrong != nil {
		t.Fatal(base.wrong)
	}
	for k := 1; k <= base.commits; k++ {
		for _, after := range []bool{false, true} {
			v := play(t, &s, s.kills(k, after))
			if err := v.compare(base); err != nil {
				return fmt.Sprintf("%s: %v", v, err)
			}
		}
	}
	return ""
}

// What a program must not rely on is found out.
func TestSweepBites(t *testing.T) {
	sound := func(ctx context.Context, fx *Effects, _ *int) error { fx.Do(ctx, "a"); return nil }
	for _, f := range []struct {
		name, want string
		s          func() Scenario
	}{
		{"nothing", "", func() Scenario { return program(sound) }},
		{"memory", "data:", func() Scenario {
			return program(func(_ context.Context, fx *Effects, n *int) error { *n = fx.Incarnation(); return nil })
		}},
		{"lost effect", `effect "a": got = 0 times, want = 1 to`, func() Scenario {
			return program(func(ctx context.Context, fx *Effects, n *int) error {
				if fx.Incarnation() == 1 {
					fx.Do(ctx, "a")
				}
				return nil
			})
		}},
		{"effect done too often", `effect "a": got = 3 times, want = 1 to 2`, func() Scenario {
			return program(func(ctx context.Context, fx *Effects, n *int) error {
				for range fx.Incarnation() {
					fx.Do(ctx, "a")
				}
				return nil
			})
		}},
		{"trigger without a key", "run f 2: got = completed", func() Scenario {
			s := program(sound)
			s.Drive = func(ctx context.Context, r *segno.RunningScheduler) error {
				_, err := r.Trigger(ctx, "f", segno.Trigger{})
				return err
			}
			return s
		}},
		{"run that never ends", "waiting for run 1, parked in a", func() Scenario {
			return program(func(ctx context.Context, fx *Effects, n *int) error {
				if fx.Incarnation() > 1 {
					return segno.Snooze(24 * time.Hour)
				}
				return nil
			})
		}},
		{"commit after the kill", "a commit reached the file after the kill, in segnotest_late", late},
	} {
		t.Run(f.name, func(t *testing.T) {
			if got := faults(t, f.s()); !strings.Contains(got, f.want) || f.want == "" && got != "" {
				t.Errorf("faults: got = %s, want = %s", got, f.want)
			}
		})
	}
}

// late is a program that writes to the file behind the scheduler's back, when
// it is dead.
func late() Scenario {
	var path string
	s := program(func(context.Context, *Effects, *int) error { return nil })
	s.Options = func(*Effects) segno.Options {
		return segno.Options{Schema: func(tx segno.Tx) error {
			_, err := tx.Exec("CREATE TABLE IF NOT EXISTS segnotest_late (n)")
			if err == nil {
				err = tx.QueryRow("SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&path)
			}
			return err
		}}
	}
	drive := s.Drive
	s.Drive = func(ctx context.Context, r *segno.RunningScheduler) error {
		err := drive(ctx, r)
		if waited := At(ctx, 2*time.Minute); waited != nil {
			db, _ := sql.Open("sqlite", path)
			_, _ = db.Exec("INSERT INTO segnotest_late VALUES (1)")
			_ = db.Close()
		}
		return err
	}
	return s
}

// A crash may repeat one unit of a run, not two, and a clean stop none.
func TestUnitsRepeated(t *testing.T) {
	rec := newRecorder()
	do := func(incarnation, run, visit int, names ...string) {
		for _, name := range names {
			rec.note(engine.Info{Run: int64(run), Visit: visit}, name, incarnation)
		}
	}
	do(1, 1, 1, "a", "x")
	do(1, 1, 2, "b")
	do(1, 2, 1, "c")
	do(2, 1, 1, "a")
	do(2, 1, 2, "b", "y")
	do(3, 2, 1, "d")
	do(3, 2, 2, "c")
	if got, want := rec.repeated(1)[1], []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("repeated in run 1: got = %v, want = %v", got, want)
	}
	for incarnation, run := range map[int]int64{1: 2, 2: 1, 3: 2} {
		if got := rec.repeated(incarnation)[run]; len(got) > 0 {
			t.Errorf("repeated in run %d behind incarnation %d: got = %v, want none", run, incarnation, got)
		}
	}
}
