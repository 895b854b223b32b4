package segno_test

import (
	"context"
	"iter"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
)

// benchUnits is how many units of its model a run of BenchmarkCommits has.
const benchUnits = 16

// benchBegin is what a run takes that is triggered for later: its creation and
// its claim.
const benchBegin = 2

type (
	benchStep  = segno.Step[sweepAt, sweepData]
	benchTable = segno.Steps[sweepAt, sweepData]
)

// A benchModel is a step with benchUnits units.
type benchModel struct {
	step    benchStep
	want    int // commits of a run, at most
	signals int // sent to each run
}

// benchModels are the processing models, each with benchUnits units, and how
// many commits a run of it may take, its creation and its end included.
func benchModels() map[string]benchModel {
	next := func(context.Context, *sweepData, []segno.Settled[int]) (sweepAt, error) { return sDone, nil }
	number := func(_ context.Context, i int) (int, error) { return i, nil }
	numbers := func(yield func(int, error) bool) {
		for i := range benchUnits {
			if !yield(i+1, nil) {
				return
			}
		}
	}
	branches := make([]func(context.Context, sweepData) (int, error), benchUnits)
	for i := range branches {
		branches[i] = func(context.Context, sweepData) (int, error) { return i, nil }
	}
	child := segno.Workflow[sweepAt, sweepData]{Initial: sDone, Steps: benchTable{sDone: {Final: true}}}
	return map[string]benchModel{
		"Plain": {step: benchStep{Do: func(_ context.Context, d *sweepData) (sweepAt, error) {
			if d.N++; d.N < benchUnits {
				return sA, nil
			}
			return sDone, nil
		}}, want: benchBegin + benchUnits},
		// A poll that has changed something is a commit, one that is not ready yet
		// and faster than ParkAfter is not.
		"Poll": {step: benchStep{Do: segno.Poll(func(_ context.Context, d *sweepData) (sweepAt, time.Duration, error) {
			if d.N++; d.N < benchUnits {
				return "", time.Millisecond, nil
			}
			return sDone, 0, nil
		})}, want: benchBegin + benchUnits},
		"Stepped": {step: benchStep{Do: segno.Stepped(func(_ context.Context, _ *sweepData, at *int) (sweepAt, bool, error) {
			*at++
			return sDone, *at < benchUnits, nil
		})}, want: benchBegin + benchUnits},
		"Batch": {step: benchStep{Do: segno.Batch(func(context.Context, sweepData) ([]int, error) { return make([]int, benchUnits), nil },
			number, next, segno.BatchOptions{Concurrency: benchUnits})}, want: benchBegin + 1 + benchUnits + 1},
		"Split": {step: benchStep{Do: segno.Split(segno.Join{}, next, branches...)}, want: benchBegin + benchUnits + 1},
		"Stream": {step: benchStep{Do: segno.Stream(segno.Source[sweepAt, sweepData, int, int, int]{
			Open: func(context.Context, sweepData, *int) (iter.Seq2[int, error], error) { return numbers, nil },
			Item: func(_ context.Context, i int) (int, int, error) { return i, i, nil },
			Flush: func(context.Context, *sweepData, []int) (sweepAt, bool, error) {
				return "", false, nil
			},
			Close: func(context.Context, *sweepData) (sweepAt, error) { return sDone, nil },
		})}, want: benchBegin + benchUnits + 1 + 1},
		// The signal, taking it, the transition; one that is waited for takes two
		// more, to wait and to wake.
		"Await": {step: benchStep{Do: segno.Await("go", func(_ context.Context, d *sweepData, _ int) (sweepAt, error) {
			if d.N++; d.N < benchUnits {
				return sA, nil
			}
			return sDone, nil
		})}, want: benchBegin + 3*benchUnits, signals: benchUnits},
		// Waiting, which creates the child, its claim, its end, the parent's claim,
		// the transition.
		"Call": {step: benchStep{Do: segno.Call("child", child, func(d sweepData) sweepData { return d },
			func(_ context.Context, d *sweepData, _ segno.Run[sweepAt, sweepData]) (sweepAt, error) {
				if d.N++; d.N < benchUnits {
					return sA, nil
				}
				return sDone, nil
			})}, want: benchBegin + 5*benchUnits},
	}
}

// BenchmarkCommits shows what each processing model costs: requests to the
// writer per unit, of which those of one moment share a sync.
func BenchmarkCommits(b *testing.B) {
	for name, m := range benchModels() {
		b.Run(name, func(b *testing.B) {
			total := benchCommits(b, m.step, b.N, m.signals)
			b.ReportMetric(float64(total)/float64(b.N*benchUnits), "commits/unit")
		})
	}
}

// No model takes more commits than its units ask for.
func TestModelsCommitNoMoreThanTheyMust(t *testing.T) {
	for name, m := range benchModels() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const runs = 3
			if got := benchCommits(t, m.step, runs, m.signals); got > runs*m.want+1 { // the sweep behind the start is one, too
				t.Errorf("commits of %d runs with %d units each: got = %d, want at most %d", runs, benchUnits, got, runs*m.want+1)
			}
		})
	}
}

// benchCommits runs the step's workflow n times and counts the commits.
func benchCommits(tb testing.TB, step benchStep, n, signals int) int {
	tb.Helper()
	var commits atomic.Int64
	gate := func(commit func() error) error {
		commits.Add(1)
		return commit()
	}
	s := segno.New(filepath.Join(tb.TempDir(), "bench.db"), segno.Options{SmallWAL: true})
	w := segno.Workflow[sweepAt, sweepData]{Initial: sA, Steps: benchTable{sA: step, sDone: {Final: true}}}
	child := segno.Workflow[sweepAt, sweepData]{Initial: sDone, Steps: benchTable{sDone: {Final: true}}}
	if err := s.Manual("f", w); err != nil {
		tb.Fatal(err)
	}
	if err := s.Manual("child", child); err != nil {
		tb.Fatal(err)
	}
	ctx := context.Background()
	r, err := s.Start(crashpoint.With(ctx, gate))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := r.Stop(ctx); err != nil {
			tb.Error(err)
		}
	}()
	before := int(commits.Load())
	for range n {
		benchRun(tb, r, signals)
	}
	return int(commits.Load()) - before
}

// benchRun makes one run. Whatever signals it may wait for are there already.
func benchRun(tb testing.TB, r *segno.RunningScheduler, signals int) {
	tb.Helper()
	ctx := context.Background()
	id, err := r.Trigger(ctx, "f", segno.Trigger{At: time.Now().Add(100 * time.Millisecond)})
	for range signals {
		if err == nil {
			err = r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", Payload: 1})
		}
	}
	if err == nil {
		_, err = r.WaitRun(ctx, id)
	}
	if err != nil {
		tb.Fatal(err)
	}
}
