package segno

import (
	"fmt"
	"time"

	"pgregory.net/rapid"
)

// A modelSpec is a schedule with what the model knows of its slots.
type modelSpec struct {
	Schedule
	cron *modelCron
}

// after returns the first slot behind t, found by counting in microseconds or
// in the list.
func (s modelSpec) after(anchor, t time.Time) time.Time {
	switch {
	case s.cron != nil:
		return s.cron.after(t)
	case s.kind == interval && t.Before(anchor):
		return anchor
	case s.kind == interval:
		us := s.d.Microseconds()
		return time.UnixMicro(t.UnixMicro() + us - (t.UnixMicro()-anchor.UnixMicro())%us).UTC()
	case s.kind == once && t.Before(s.at):
		return s.at
	}
	return time.Time{}
}

// period is how far the slots lie apart, about.
func (s modelSpec) period() time.Duration {
	switch {
	case s.d > 0:
		return s.d
	case s.cron != nil && s.cron.wild:
		return time.Hour
	}
	return 24 * time.Hour
}

// drawSpec draws a schedule of any kind.
func drawSpec(t *rapid.T, crons []*modelCron, start time.Time) modelSpec {
	switch n := rapid.IntRange(0, 9).Draw(t, "schedule"); {
	case n < 4:
		d := rapid.SampledFrom([]time.Duration{5 * time.Second, time.Minute, 41 * time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "every")
		return modelSpec{Schedule: Every(d)}
	case n < 5:
		d := rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Minute, time.Hour}).Draw(t, "delay")
		return modelSpec{Schedule: FixedDelay(d)}
	case n < 9:
		c := rapid.SampledFrom(crons).Draw(t, "cron")
		return modelSpec{Schedule: c.schedule(), cron: c}
	default:
		after := rapid.SampledFrom([]time.Duration{-time.Hour, time.Second, time.Hour, 72 * time.Hour}).Draw(t, "at")
		return modelSpec{Schedule: At(start.Add(after))}
	}
}

// drawFlow draws the policies of a flow that is registered at start.
func drawFlow(t *rapid.T, start time.Time) Flow {
	durations := func(name string, list ...time.Duration) time.Duration {
		return rapid.SampledFrom(append([]time.Duration{0, 0}, list...)).Draw(t, name)
	}
	f := Flow{
		ID:          "f",
		Overlap:     rapid.SampledFrom([]Overlap{Skip, Skip, Replace, Allow(0), Allow(2)}).Draw(t, "overlap"),
		CatchUp:     rapid.SampledFrom([]CatchUp{CatchUpLatest, CatchUpLatest, CatchUpSkip, CatchUpAll(0), CatchUpAll(1), CatchUpAll(3)}).Draw(t, "catch up"),
		MaxLateness: durations("lateness", 500*time.Millisecond, 10*time.Second, 2*time.Hour),
		Jitter:      durations("jitter", 3*time.Microsecond, time.Second, 10*time.Minute, 30*time.Hour),
		SlotRetries: rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "slot retries"),
		MaxRuns:     rapid.SampledFrom([]int{0, 0, 0, 1, 3, 20}).Draw(t, "max runs"),
		Serial:      rapid.Bool().Draw(t, "serial"),
		SkipFirst:   rapid.Bool().Draw(t, "skip first"),
		Backoff: BackoffPolicy{
			Jitter:      -1,
			Initial:     rapid.SampledFrom([]time.Duration{0, -1, 90 * time.Second, 20 * time.Minute}).Draw(t, "backoff"),
			MaxDelay:    time.Hour,
			StreakLimit: rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "streak limit"),
		},
	}
	if d := durations("start at", -100*time.Hour, time.Minute, 50*time.Hour); d != 0 {
		f.StartAt = start.Add(d)
	}
	if d := durations("end at", time.Hour, 120*time.Hour, 900*time.Hour); d != 0 {
		f.EndAt = later(f.StartAt, start).Add(d)
	}
	return f
}

// The operations of the model.
const (
	opNext  = iota // the next thing that the flow waits for
	opTime         // time passes, and the dispatcher looks
	opCrash        // time passes, and nobody looks
	opLost         // what was decided is not committed
	opSpec         // a start with another schedule
	opEnd          // a run ends
	opFails        // a run fails
	opTrigger
	opCancel
	opPause
	opResume
	opReset
	opSkip
	opClock
	opUnstick
	opRace // something happens while the slots are being decided
)

// modelOps are the operations, the more often the likelier.
var modelOps = []int{
	opNext, opNext, opNext, opNext, opNext, opTime, opTime, opCrash, opLost, opSpec,
	opEnd, opEnd, opEnd, opEnd, opFails, opFails, opFails, opTrigger, opCancel,
	opPause, opResume, opResume, opReset, opSkip, opClock, opUnstick, opRace, opRace,
}

// racing are those that can come in between.
var racing = []int{opEnd, opFails, opTrigger, opCancel, opPause, opResume, opReset, opSkip, opUnstick}

// A modelOp is an operation and a number that says how.
type modelOp struct{ kind, n int }

func (o modelOp) String() string { return fmt.Sprintf("{%d, %d}", o.kind, o.n) }

// drawOps draws a sequence of operations.
func drawOps(most int) *rapid.Generator[[]modelOp] {
	one := rapid.Map(rapid.Uint16(), func(n uint16) modelOp {
		return modelOp{modelOps[int(n)%len(modelOps)], int(n) / len(modelOps)}
	})
	return rapid.SliceOfN(one, most/2, most)
}

func (s modelSpec) String() string { return s.Schedule.String() }
