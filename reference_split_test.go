package segno_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// referenceSplit are the acceptance scenarios about branches and their joins;
// each runs in a bubble of its own.
var referenceSplit = map[string]func(*testing.T){
	"J01_all_ok":                        refAll,
	"J02_all_waits":                     refAllDecided,
	"J03_any_first":                     refAnyFirst,
	"J04_any_all_fail":                  refAnyAllFail,
	"J05_quorum_ok":                     refQuorum,
	"J06_quorum_waits":                  refQuorumDecided,
	"J07_quorum_timeout":                refQuorumTimeout,
	"J08_quorum_zero_and_too_big":       refQuorumEdges,
	"J09_percentage_ceil":               refPercentageCeil,
	"J10_percentage_invalid":            refPercentageInvalid,
	"J11_percentage_float":              refPercentageFloat,
	"J12_partial_results":               refPartialResults,
	"J13_partial_results_failures":      refPartialResultsFailures,
	"J14_partial_results_short":         refPartialResultsShort,
	"J15_partial_timeout":               refPartialTimeout,
	"J16_partial_timeout_only_failures": refPartialTimeoutFailures,
	"J17_partial_timeout_none":          refPartialTimeoutNone,
	"J18_partial_timeout_unset":         refPartialTimeoutUnset,
	"J19_empty_split":                   refEmptySplit,
	"J20_bulkhead":                      refBulkhead,
	"J21_branch_retry":                  refBranchRetry,
	"J22_branch_panic":                  refBranchPanic,
	"J23_branch_result_ignored":         refBranchResults,
	"J24_join_state_check":              refJoinState,
	"J25_event_balance_cancel":          refSplitCancel,
	"J26_event_balance_timeout":         refSplitTimeout,
	"J27_error_digest":                  refErrorDigest,
	"J28_split_resume":                  refSplitResume,
	"C08_split_abort":                   refSplitAbort,
	"R09_split_one_row":                 refSplitOneRow,
	"G22_split_from_saga":               refSplitUndone,
}

// A branch makes a word.
type branch = func(context.Context, cargo) (string, error)

// takes is a branch that takes d, unless its context ends first, and then
// returns what it is called, or the error.
func takes(d time.Duration, err error) branch {
	return func(ctx context.Context, _ cargo) (string, error) {
		if ended := sweepRest(ctx, d); ended != nil {
			return "", ended
		}
		return d.String(), err
	}
}

// ms are branches that take so many milliseconds; those of a negative number fail then.
func ms(delays ...int) (branches []branch) {
	for _, n := range delays {
		if n < 0 {
			branches = append(branches, takes(time.Duration(-n)*time.Millisecond, errTest))
			continue
		}
		branches = append(branches, takes(time.Duration(n)*time.Millisecond, nil))
	}
	return branches
}

// settled shows what has become of the units: a value, ! for an error, - for skipped.
func settled[T any](all []segno.Settled[T]) string {
	words := make([]string, len(all))
	for i, s := range all {
		switch {
		case s.Skipped:
			words[i] = "-"
		case s.Err != nil:
			words[i] = "!"
		default:
			words[i] = fmt.Sprint(s.Value)
		}
	}
	return strings.Join(words, " ")
}

// fork is a split whose merge puts what has become of the branches into the data.
func fork(j segno.Join, branches ...branch) do {
	return segno.Split(j, func(_ context.Context, c *cargo, all []segno.Settled[string]) (leg, error) {
		c.Text = "[" + settled(all) + "]"
		return done, nil
	}, branches...)
}

// text returns the text in the data of a run.
func text(t *testing.T, info segno.RunInfo) string {
	t.Helper()
	var c cargo
	if err := json.Unmarshal(info.Data, &c); err != nil {
		t.Fatal(err)
	}
	return c.Text
}

// wantFork runs a split and wants it to be joined with this, after so long; each
// branch that begins has its end.
func wantFork(t *testing.T, want string, took time.Duration, j segno.Join, branches ...branch) {
	t.Helper()
	b, _ := watched(t)
	r := b.start(flowOf("f", one(fork(j, branches...))))
	begin := time.Now()
	info := r.completed(r.trigger("f", cargo{}))
	expect(t, "joined", text(t, info), want)
	expect(t, "took", time.Since(begin), took)
	b.stop()
}

// wantNoFork is wantFork for one that is not joined: it returns the run's error.
func wantNoFork(t *testing.T, took time.Duration, j segno.Join, branches ...branch) *segno.RunError {
	t.Helper()
	b, _ := watched(t)
	r := b.start(flowOf("f", one(fork(j, branches...))))
	begin := time.Now()
	e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
	expect(t, "took", time.Since(begin), took)
	b.stop()
	return e
}

// wantUnjoined is wantNoFork with ErrJoin and these parts of the text.
func wantUnjoined(t *testing.T, took time.Duration, parts []string, j segno.Join, branches ...branch) {
	t.Helper()
	e := wantNoFork(t, took, j, branches...)
	expectError(t, "the run", e, segno.ErrJoin)
	if !contains(e.Error(), parts...) {
		t.Errorf("error: got = %q, want the parts %q", e, parts)
	}
}

const milli = time.Millisecond

func refAll(t *testing.T) {
	wantFork(t, "[10ms 30ms 20ms]", 30*milli, segno.Join{}, ms(10, 30, 20)...)
	wantUnjoined(t, 30*milli, []string{"2 of 3 branches succeeded, 3 must", "branch 1: test: went wrong"}, segno.Join{}, ms(10, -30, 20)...)
}

func refAllDecided(t *testing.T) {
	wantUnjoined(t, 10*milli, []string{"branch 0: test: went wrong"}, segno.Join{}, ms(-10, 200)...)
}

func refAnyFirst(t *testing.T) {
	wantFork(t, "[50ms - -]", 50*milli, segno.Join{Mode: segno.Any}, ms(50, 150, 300)...)
}

func refAnyAllFail(t *testing.T) {
	wantUnjoined(t, 300*milli, []string{"0 of 3 branches succeeded, 1 must"}, segno.Join{Mode: segno.Any}, ms(-50, -150, -300)...)
}

func refQuorum(t *testing.T) {
	wantFork(t, "[! 20ms 30ms]", 30*milli, segno.Join{Mode: segno.Quorum, N: 2}, ms(-10, 20, 30)...)
}

func refQuorumDecided(t *testing.T) {
	wantFork(t, "[50ms 100ms - -]", 100*milli, segno.Join{Mode: segno.Quorum, N: 2}, ms(50, 100, 400, 500)...)
}

func refQuorumTimeout(t *testing.T) {
	wantFork(t, "[50ms 100ms -]", 100*milli, segno.Join{Mode: segno.Quorum, N: 2, Timeout: 200 * milli}, ms(50, 100, 400)...)
}

func refQuorumEdges(t *testing.T) {
	wantFork(t, "[- - -]", 0, segno.Join{Mode: segno.Quorum}, ms(-10, -10, -10)...)
	wantUnjoined(t, 0, []string{"0 of 3 branches succeeded, 5 must"}, segno.Join{Mode: segno.Quorum, N: 5}, ms(10, 10, 10)...)
	wantUnjoined(t, 0, nil, segno.Join{Mode: segno.Quorum, N: math.MaxInt}, ms(10, 10, 10)...)
}

func refPercentageCeil(t *testing.T) {
	half := segno.Join{Mode: segno.Percentage, Percent: 0.5}
	wantUnjoined(t, 20*milli, []string{"1 of 3 branches succeeded, 2 must"}, half, ms(10, -20, -20)...)
	wantFork(t, "[10ms 20ms -]", 20*milli, half, ms(10, 20, -30)...)
	wantFork(t, "[10ms 20ms]", 20*milli, segno.Join{Mode: segno.Percentage, Percent: 1}, ms(10, 20)...)
}

func refPercentageInvalid(t *testing.T) {
	for _, p := range []float64{0, 1.5, math.NaN(), -0.5, math.Inf(1)} {
		e := wantNoFork(t, 0, segno.Join{Mode: segno.Percentage, Percent: p}, ms(10)...)
		if !contains(e.Error(), segno.ErrConfig.Error(), fmt.Sprintf("Join.Percent is %v, not in (0, 1]", p)) {
			t.Errorf("error: got = %v, want a bad configuration that names Join.Percent", e)
		}
	}
}

func refPercentageFloat(t *testing.T) {
	delays := make([]int, 100)
	for i := range delays {
		if delays[i] = -10; i < 55 {
			delays[i] = 20
		}
	}
	b, _ := watched(t)
	r := b.start(flowOf("f", one(fork(segno.Join{Mode: segno.Percentage, Percent: 0.55}, ms(delays...)...))))
	expect(t, "successes", strings.Count(text(t, r.completed(r.trigger("f", cargo{}))), "20ms"), 55)
}

func refPartialResults(t *testing.T) {
	wantFork(t, "[50ms 100ms - -]", 100*milli, segno.Join{Mode: segno.PartialResults, N: 2}, ms(50, 100, 500, 600)...)
}

func refPartialResultsFailures(t *testing.T) {
	wantFork(t, "[50ms ! 500ms -]", 500*milli, segno.Join{Mode: segno.PartialResults, N: 2}, ms(50, -100, 500, 600)...)
}

func refPartialResultsShort(t *testing.T) {
	wantUnjoined(t, 200*milli, []string{"2 of 4 branches succeeded, 3 must within 200ms"},
		segno.Join{Mode: segno.PartialResults, N: 3, Timeout: 200 * milli}, ms(50, 100, 500, 600)...)
}

func refPartialTimeout(t *testing.T) {
	j := segno.Join{Mode: segno.PartialTimeout, Timeout: 200 * milli}
	wantFork(t, "[50ms 100ms - -]", 200*milli, j, ms(50, 100, 500, 600)...)
	wantFork(t, "[50ms ! - -]", 200*milli, j, ms(50, -100, 500, 600)...)
	wantFork(t, "[50ms 100ms]", 100*milli, j, ms(50, 100)...)
}

func refPartialTimeoutFailures(t *testing.T) {
	wantFork(t, "[! -]", 200*milli, segno.Join{Mode: segno.PartialTimeout, Timeout: 200 * milli}, ms(-50, 500)...)
}

func refPartialTimeoutNone(t *testing.T) {
	wantUnjoined(t, 200*milli, []string{"none of 2 branches ended within 200ms"},
		segno.Join{Mode: segno.PartialTimeout, Timeout: 200 * milli}, ms(500, 600)...)
}

func refPartialTimeoutUnset(t *testing.T) {
	e := wantNoFork(t, 0, segno.Join{Mode: segno.PartialTimeout}, ms(10)...)
	expect(t, "names the fault", contains(e.Error(), segno.ErrConfig.Error(), "there is no Timeout"), true)
}

func refEmptySplit(t *testing.T) {
	for _, j := range []segno.Join{{}, {Mode: segno.Quorum}, {Mode: segno.Percentage, Percent: 1}, {Mode: segno.PartialResults}} {
		wantFork(t, "[]", 0, j)
	}
	for _, j := range []segno.Join{{Mode: segno.Any}, {Mode: segno.Quorum, N: 1}, {Mode: segno.PartialTimeout, Timeout: time.Second}} {
		wantUnjoined(t, 0, nil, j)
	}
}

// highWater counts how many are inside at the same time.
type highWater struct{ now, most atomic.Int64 }

func (h *highWater) in() (out func()) {
	n := h.now.Add(1)
	for m := h.most.Load(); n > m && !h.most.CompareAndSwap(m, n); m = h.most.Load() {
	}
	return func() { h.now.Add(-1) }
}

func refBulkhead(t *testing.T) {
	for limit, want := range map[int]int64{2: 2, 0: 10} {
		var h highWater
		var branches []branch
		for range 10 {
			branches = append(branches, func(ctx context.Context, c cargo) (string, error) {
				defer h.in()()
				return takes(10*milli, nil)(ctx, c)
			})
		}
		wantFork(t, "["+strings.TrimSpace(strings.Repeat("10ms ", 10))+"]", time.Duration(100/want)*milli, segno.Join{Bulkhead: limit}, branches...)
		expect(t, fmt.Sprint("at the same time, limit ", limit), h.most.Load(), want)
	}
	e := wantNoFork(t, 0, segno.Join{Bulkhead: -1}, ms(10)...)
	expect(t, "names the fault", contains(e.Error(), segno.ErrConfig.Error(), "Join.Bulkhead is -1"), true)
}

func refBranchRetry(t *testing.T) {
	var s tries
	wantFork(t, "[10ms ok]", 300*milli, segno.Join{Retry: plain(3, 100*milli)}, takes(10*milli, nil),
		func(ctx context.Context, _ cargo) (string, error) {
			if s.note(ctx) <= 2 {
				return "", errTest
			}
			return "ok", nil
		})
	expect(t, "attempts", s.numbers(), "[1 2 3]")
}

func refBranchPanic(t *testing.T) {
	wantUnjoined(t, 10*milli, []string{"branch 1: " + segno.ErrPanic.Error() + ": odd"}, segno.Join{},
		takes(10*milli, nil), func(context.Context, cargo) (string, error) {
			time.Sleep(10 * milli)
			panic("odd")
		})
	wantFork(t, "[20ms !]", 20*milli, segno.Join{Mode: segno.PartialTimeout, Timeout: time.Second},
		takes(20*milli, nil), func(context.Context, cargo) (string, error) { panic(7) })
}

func refBranchResults(t *testing.T) {
	r := newBed(t).start(flowOf("f", one(segno.Split(segno.Join{}, func(_ context.Context, c *cargo, all []segno.Settled[leg]) (leg, error) {
		c.Text = settled(all)
		return done, nil
	}, func(context.Context, cargo) (leg, error) { return legB, nil }, func(context.Context, cargo) (leg, error) { return legC, nil }))))
	info := r.completed(r.trigger("f", cargo{}))
	expect(t, "State", info.State, "done")
	expect(t, "what the branches returned", text(t, info), "b c")
}

// Where a split leads is what its merge returns, checked as for any step.
func refJoinState(t *testing.T) {
	var joined leg
	split := segno.Split(segno.Join{}, func(context.Context, *cargo, []segno.Settled[string]) (leg, error) { return joined, nil }, ms(10)...)
	r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: split, Next: []leg{done}})), flowOf("open", one(split)))
	joined = "mars"
	expectError(t, "an unknown state", r.ended(r.trigger("open", cargo{}), segno.RunFailed), segno.ErrUnknownState)
	joined = legA
	expectError(t, "one that Next does not have", r.ended(r.trigger("f", cargo{}), segno.RunFailed), segno.ErrTransition)
	joined = done
	r.completed(r.trigger("f", cargo{}))
}

// unitEvents counts events of the units.
func unitEvents(w *segnotest.Recorder, kind segno.EventKind) (n int) {
	for _, e := range w.Kind(kind) {
		if e.Unit != "" {
			n++
		}
	}
	return n
}

func refSplitCancel(t *testing.T) {
	b, w := watched(t)
	r := b.start(flowOf("f", one(fork(segno.Join{}, ms(1000, 2000, 3000)...))))
	id := r.trigger("f", cargo{})
	synctest.Wait()
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	expect(t, "starts", unitEvents(w, segno.EventTaskStarted), 3)
	expect(t, "failures", unitEvents(w, segno.EventTaskFailed), 3)
}

func refSplitTimeout(t *testing.T) {
	b, w := watched(t)
	r := b.start(flowOf("f", one(fork(segno.Join{Timeout: 1500 * milli}, ms(1000, 2000, 3000)...))))
	r.ended(r.trigger("f", cargo{}), segno.RunFailed)
	expect(t, "starts", unitEvents(w, segno.EventTaskStarted), 3)
	expect(t, "successes", unitEvents(w, segno.EventTaskSucceeded), 1)
	expect(t, "failures", unitEvents(w, segno.EventTaskFailed), 2)
}

func refErrorDigest(t *testing.T) {
	wantUnjoined(t, 10*milli, []string{"branch 0: test: went wrong; branch 1: test: went wrong; branch 2: test: went wrong; and 2 more"},
		segno.Join{Mode: segno.Any}, ms(-10, -10, -10, -10, -10)...)
}

// Only the branches that were in work at the crash are repeated.
func refSplitResume(t *testing.T) {
	b := newBed(t)
	var calls tally
	alive := false
	var branches []branch
	for i := range 3 {
		branches = append(branches, func(ctx context.Context, c cargo) (string, error) {
			calls.add("%d", i)
			if i > 0 && !alive {
				return takes(time.Hour, nil)(ctx, c)
			}
			return fmt.Sprint(i), nil
		})
	}
	f := flowOf("f", one(fork(segno.Join{Bulkhead: 2}, branches...)))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	calls.take()
	alive = true
	r = b.start(f)
	expect(t, "joined", text(t, r.completed(id)), "[0 1 2]")
	expect(t, "branch 0 is not repeated", strings.Contains(calls.String(), "0"), false)
	expect(t, "calls", calls.len(), 2)
	expect(t, "log", r.log(id), "enter a, crash a, end done")
}

func refSplitAbort(t *testing.T) {
	b, w := watched(t)
	var ended tally
	word := func(ctx context.Context, c cargo) (string, error) {
		s, err := takes(time.Second, nil)(ctx, c)
		if err == nil {
			ended.add("%s", s)
		}
		return s, err
	}
	r := b.start(flowOf("f", one(fork(segno.Join{}, word, word, word))))
	id := r.trigger("f", cargo{})
	time.Sleep(500 * milli)
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	expect(t, "branches that completed", ended.len(), 0)
	expect(t, "successes told", unitEvents(w, segno.EventTaskSucceeded), 0)
	time.Sleep(time.Second)
	expect(t, "branches that completed later", ended.len(), 0)
}

func refSplitOneRow(t *testing.T) {
	r := newBed(t).start(flowOf("f", route{Initial: legA, Steps: legs{
		legA: {Do: to(legB)}, legB: {Do: fork(segno.Join{}, ms(10, 20, 30, 40, 50)...)}, done: {Final: true},
	}}))
	id := r.trigger("f", cargo{})
	r.completed(id)
	expect(t, "log", r.log(id), "enter a, enter b, end done")
}

// A split may have an Undo like any step: it undoes what merge has put into the data.
func refSplitUndone(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", route{Initial: legA, Steps: legs{
		legA: {Do: segno.Split(segno.Join{}, func(_ context.Context, c *cargo, all []segno.Settled[string]) (leg, error) {
			c.Text = settled(all)
			return legB, nil
		}, ms(10, 20)...), Undo: func(_ context.Context, c cargo) error { said.add("%s", c.Text); return nil }},
		legB: {Do: fail}, done: {Final: true},
	}}))
	r.ended(r.trigger("f", cargo{}), segno.RunFailed)
	expect(t, "undone with", said.String(), "10ms 20ms")
}
