package segno_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// The sweeps share a few states and one kind of data.
type sweepAt string

const (
	sA    sweepAt = "a"
	sB    sweepAt = "b"
	sC    sweepAt = "c"
	sD    sweepAt = "d"
	sDone sweepAt = "done"
)

type sweepData struct {
	Log []string `json:",omitempty"` // what was done, in order
	N   int      `json:",omitempty"`
}

type (
	sweepTable = segno.Steps[sweepAt, sweepData]
	sweepStep  = segno.Step[sweepAt, sweepData]
	sweepFlow  = segno.Workflow[sweepAt, sweepData]
	sweepFX    = segnotest.Effects
)

// sweepLong reports whether the long suites are asked for.
func sweepLong() bool { return os.Getenv("SEGNO_LONG") != "" }

// sweep runs a scenario beside others, with a kill at every fourth commit; when
// the long suites are asked for at every one, and at every third with a second
// kill behind it;
// with -short at every thirtieth.
func sweep(t *testing.T, s segnotest.Scenario) {
	t.Helper()
	t.Parallel()
	switch {
	case sweepLong():
	case testing.Short():
		s.Stride = 30
	default:
		s.Stride = 4
	}
	segnotest.CrashSweep(t, s)
	if sweepLong() {
		s.Crashes, s.Stride = 2, 3
		segnotest.CrashSweep(t, s)
	}
}

// sweepAtLength is sweep for a scenario of many commits: one of the long suites.
func sweepAtLength(t *testing.T, s segnotest.Scenario) {
	t.Helper()
	if !sweepLong() {
		t.Skip("set SEGNO_LONG=1 to run it")
	}
	sweep(t, s)
}

// sweepManual registers one manual flow "f" with the given sweepFlow.
func sweepManual(make func(fx *sweepFX) sweepFlow) func(*segno.Scheduler, *sweepFX) error {
	return func(s *segno.Scheduler, fx *sweepFX) error { return s.Manual("f", make(fx)) }
}

// sweepTrigger starts the run of "f" with the given key.
func sweepTrigger(key string) func(context.Context, *segno.RunningScheduler) error {
	return func(ctx context.Context, r *segno.RunningScheduler) error {
		_, err := r.Trigger(ctx, "f", segno.Trigger{Key: key})
		return err
	}
}

// sweepDo makes a sweepStep that does what its name says and goes on.
func sweepDo(fx *sweepFX, name string, next sweepAt) segno.DoFunc[sweepAt, sweepData] {
	return func(ctx context.Context, d *sweepData) (sweepAt, error) {
		fx.Do(ctx, name)
		d.Log = append(d.Log, name)
		return next, nil
	}
}

// sweepUndo makes an undo that does what its name says.
func sweepUndo(fx *sweepFX, name string) func(context.Context, sweepData) error {
	return func(ctx context.Context, d sweepData) error {
		fx.Do(ctx, fmt.Sprintf("undo %s of %v", name, d.Log))
		return nil
	}
}

// sweepRest waits for a while of fake time, or for the end of the context.
func sweepRest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errSweep = errors.New("broken")

// sweepRun checks how a run ended; key may also be a slot's offset.
func sweepRun(flow, key, status, data string) func(o *segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		for _, r := range o.Runs {
			if r.Flow != flow || r.Key != key && (r.Slot.IsZero() || r.Slot.Sub(segnotest.Epoch).String() != key) {
				continue
			}
			if r.Status != status || data != "" && r.Data != data {
				return fmt.Errorf("run %s/%s: got = %s %s, want = %s %s", flow, key, r.Status, r.Data, status, data)
			}
			return nil
		}
		return fmt.Errorf("run %s/%s: got none", flow, key)
	}
}

// sweepAll joins checks.
func sweepAll(checks ...func(*segnotest.Outcome) error) func(*segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		var errs []error
		for _, check := range checks {
			errs = append(errs, check(o))
		}
		return errors.Join(errs...)
	}
}

// sweepEnded checks when a run ended.
func sweepEnded(flow, key string, want time.Duration) func(*segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		for _, r := range o.Runs {
			if got := r.Ended.Sub(segnotest.Epoch); r.Flow == flow && r.Key == key && got != want {
				return fmt.Errorf("run %s/%s ended: got = %v, want = %v", flow, key, got, want)
			}
		}
		return nil
	}
}

// sweepOnce checks what was written with segnotest.Once.
func sweepOnce(names ...string) func(*segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		want := make([]string, len(names))
		for i, name := range names {
			want[i] = "name=" + name
		}
		slices.Sort(want)
		if got := o.Tables["segnotest_once"]; !slices.Equal(got, want) {
			return fmt.Errorf("once: got = %q, want = %q", got, want)
		}
		return nil
	}
}

// sweepJitter takes out what the jitter of the default backoff makes of a
// failed run.
func sweepJitter(o *segnotest.Outcome) {
	for i := range o.Flows {
		o.Flows[i].Eligible = time.Time{}
	}
}
