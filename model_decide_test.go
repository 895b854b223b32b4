package segno

import (
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Random sequences of operations on a flow, whose decisions are held against
// those of a model that looks at each slot by itself.
func TestModelOfDecisions(t *testing.T) {
	t.Parallel()
	want := 20_000
	if testing.Short() {
		want = 2_000
	}
	modelDecisions(t, want)
}

// The same, until it is a million operations.
func TestLongModelOfDecisions(t *testing.T) {
	if os.Getenv("SEGNO_LONG") == "" {
		t.Skip("set SEGNO_LONG=1 to run it")
	}
	t.Parallel()
	modelDecisions(t, 1_000_000)
}

func modelDecisions(t *testing.T, want int) {
	crons, start := modelCrons(), modelFrom.Add(20*24*time.Hour+90*time.Minute)
	done := 0
	for done < want && !t.Failed() {
		rapid.Check(t, func(t *rapid.T) {
			var specs []modelSpec
			for range 3 {
				specs = append(specs, drawSpec(t, crons, start))
			}
			f, ops := drawFlow(t, start), drawOps(300).Draw(t, "ops")
			n, err := playModel(f, specs, start, ops)
			if err != nil {
				ops, err = shrinkModel(ops, func(ops []modelOp) error {
					_, err := playModel(f, specs, start, ops)
					return err
				})
				t.Fatalf("%v\nspecs %v\nops %v\noverlap %d, catch up %d, lateness %v, jitter %v, retries %d, runs %d, serial %v, skip first %v, backoff %+v, bounds %v %v", err,
					specs, ops, f.Overlap, f.CatchUp, f.MaxLateness, f.Jitter, f.SlotRetries, f.MaxRuns, f.Serial, f.SkipFirst, f.Backoff, f.StartAt, f.EndAt)
			}
			done += n
		})
	}
	t.Logf("%d operations", done)
}

// playModel performs operations on a flow of the first of the schedules, as long
// as the list of the crons' slots goes.
func playModel(f Flow, specs []modelSpec, start time.Time, ops []modelOp) (done int, fault error) {
	w, err := newModelWorld(f, specs, start)
	if err != nil {
		return 0, nil // no slot lies between the bounds
	}
	for i, o := range ops {
		if w.fault != nil || modelTo.Sub(w.now) < 1000*time.Hour {
			return i, w.fault
		}
		w.do(o)
	}
	return len(ops), w.fault
}

// shrinkModel leaves out operations while it still fails without them: rapid
// shrinks what it draws, and does not know what can be left out together.
func shrinkModel(ops []modelOp, play func([]modelOp) error) ([]modelOp, error) {
	fault := play(ops)
	for size := len(ops) / 2; size > 0; size /= 2 {
		for i := 0; i+size <= len(ops); {
			fewer := append(slices.Clone(ops[:i]), ops[i+size:]...)
			if err := play(fewer); err != nil {
				ops, fault = fewer, err
				continue
			}
			i += size
		}
	}
	return ops, fault
}
