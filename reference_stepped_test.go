package segno_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// referenceStepped are the acceptance scenarios about Stepped.
var referenceStepped = map[string]func(*testing.T){
	"S01_stepped_threads_cursor":         refTimed(refSteppedThreads),
	"S02_stepped_retry_same_cursor":      refTimed(refSteppedRetry),
	"S03_stepped_plain_register_restart": refTimed(refSteppedOneForm),
	"S04_stepped_hard_fail_resume":       refTimed(refSteppedFailResume),
	"S05_stepped_kill9":                  refSteppedKill,
	"S06_stepped_rows":                   refTimed(refSteppedRows),
	"S07_stepped_no_cursor_resume":       refTimed(refSteppedNoCursor),
	"S08_stepped_split_done":             refTimed(refSteppedStrangeEnd),
	"S09_stepped_panic":                  refTimed(refSteppedPanic),
	"S10_stepped_append_fail":            refTimed(refSteppedCommitFails),
	"S11_stepped_bad_cursor":             refTimed(refSteppedBadCursor),
	"S12_stepped_cancel":                 refTimed(refSteppedCancel),
	"S13_stepped_revisit_fresh":          refTimed(refSteppedRevisit),
	"S14_stepped_revisit_after_resume":   refTimed(refSteppedRevisitAfterResume),
	"S15_stepped_atomic_effect":          refSteppedAtomic,
}

func refSteppedThreads(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", one(climb(&said, 3, done, nil))))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "cursors", said.String(), "0 1 2")
}

func refSteppedRetry(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
		Do: climb(&said, 6, done, brokenAt(3, 2)), Retry: segno.Fixed(3, 10*time.Millisecond),
	})))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "cursors", said.String(), "0 1 2 3 3 3 4 5")
}

// There is one form of Stepped, and it keeps its cursor.
func refSteppedOneForm(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
		Do: climb(&said, 4, done, brokenAt(3, 1)), Retry: segno.Fixed(2, 10*time.Millisecond),
	})))
	r.completed(r.trigger("f", cargo{}))
	expect(t, "cursors: a retry does not begin anew", said.String(), "0 1 2 3 3")
}

// A run that has failed has ended; what waits for the fix is a retry.
func refSteppedFailResume(t *testing.T) {
	b := newBed(t)
	var said tally
	flow := func(fault func(context.Context, int) error) segno.Flow {
		return flowOf("f", oneStep(segno.Step[leg, cargo]{Do: climb(&said, 7, done, fault), Retry: segno.Fixed(2, time.Hour)}))
	}
	r := b.start(flow(brokenAt(4, 9)))
	id := r.trigger("f", cargo{})
	synctest.Wait()
	expect(t, "status", r.info(id).Status, segno.RunParked)
	b.stop()
	r = b.start(flow(nil))
	r.completed(id)
	expect(t, "cursors", said.String(), "0 1 2 3 4 4 5 6")
	expect(t, "cursors that are kept", b.memos(), "")
}

func refSteppedRows(t *testing.T) {
	b := newBed(t)
	var said tally
	r := b.start(flowOf("f", one(climb(&said, 4, done, nil))))
	synctest.Wait()
	before := b.commits.Load()
	id := r.trigger("f", cargo{})
	r.completed(id)
	expect(t, "commits: the entry, three cursors, the end", b.commits.Load()-before, 5)
	expect(t, "log", r.log(id), "enter a, end done")
	expect(t, "cursors that are kept", b.memos(), "")
}

func refSteppedNoCursor(t *testing.T) {
	b := newBed(t)
	var said tally
	holds := true
	f := flowOf("f", one(climb(&said, 3, done, holdAt(0, &holds))))
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	holds = false
	b.start(f).completed(id)
	expect(t, "cursors", said.String(), "0 0 1 2")
}

// What a step returns is a state, so there is nothing of another kind to refuse.
func refSteppedStrangeEnd(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", one(climb(&said, 2, "mars", nil))))
	expectError(t, "the run", r.failed(r.trigger("f", cargo{})), segno.ErrUnknownState)
	expect(t, "cursors", said.String(), "0 1")
}

func refSteppedPanic(t *testing.T) {
	for _, again := range []bool{false, true} {
		var said tally
		b := newBed(t)
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Retry: segno.Retry{Attempts: 2, Panics: again},
			Do: climb(&said, 4, done, func(ctx context.Context, at int) error {
				if at == 2 && segno.InfoFrom(ctx).Attempt == 1 {
					panic("on the way")
				}
				return nil
			}),
		})))
		id := r.trigger("f", cargo{})
		if again {
			r.completed(id)
			expect(t, "cursors: the last one was intact", said.String(), "0 1 2 2 3")
		} else {
			err := r.failed(id)
			expectError(t, "the run", err, segno.ErrPanic)
			expectText(t, "the run", err, "on the way")
			expect(t, "cursors", said.String(), "0 1 2")
		}
		b.stop()
	}
}

// A commit that fails is nobody's fault: the file is closed, and the next start
// goes on at the last cursor.
func refSteppedCommitFails(t *testing.T) {
	b := newBed(t)
	var said tally
	var fails bool
	f := flowOf("f", one(climb(&said, 4, done, func(_ context.Context, at int) error {
		if at == 2 && fails {
			b.dead.Store(true)
		}
		return nil
	})))
	fails = true
	r := b.start(f)
	id := r.trigger("f", cargo{})
	expectError(t, "Wait", b.run.Wait(), segno.ErrStoreFailed)
	b.run, fails = nil, false
	r = b.start(f)
	r.completed(id)
	expect(t, "cursors", said.String(), "0 1 2 2 3")
	expect(t, "failed attempts", strings.Contains(r.log(id), "retry"), false)
}

// A cursor that cannot be read needs a person; it stays as it is.
func refSteppedBadCursor(t *testing.T) {
	b := newBed(t)
	var said tally
	holds := true
	f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: climb(&said, 4, done, holdAt(2, &holds)), Retry: segno.Fixed(5, time.Second)}))
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	said.take()
	holds = false
	good := b.memos()
	b.exec(`UPDATE _segno_memo SET value = '{"n":2,"c":"x"}'`)
	r := b.start(f)
	_, err := r.WaitRun(context.Background(), id)
	expectError(t, "WaitRun", err, segno.ErrStuck)
	expect(t, "the reason names it", contains(r.info(id).StuckReason, "cursor", "int"), true)
	expect(t, "calls", said.String(), "")
	b.stop()
	expect(t, "the cursor", b.memos(), `{"n":2,"c":"x"}`)
	b.exec(`UPDATE _segno_memo SET value = ?`, good)
	r = b.start(f)
	if err := r.ResumeRun(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	r.completed(id)
	expect(t, "cursors after the repair", said.String(), "2 3")
}

// A cancel ends the run. It is a stop that is resumed.
func refSteppedCancel(t *testing.T) {
	b := newBed(t)
	var said tally
	holds := true
	f := flowOf("f", one(climb(&said, 4, done, holdAt(2, &holds))))
	r := b.start(f)
	id := r.trigger("f", cargo{})
	synctest.Wait()
	begin := time.Now()
	r.cancel(id)
	expectError(t, "the run", r.ended(id, segno.RunCancelled), context.Canceled)
	expect(t, "took", time.Since(begin), 0)
	expect(t, "cursors that are kept", b.memos(), "")

	id = r.trigger("f", cargo{})
	synctest.Wait()
	said.take()
	b.hurry()
	holds = false
	b.start(f).completed(id)
	expect(t, "cursors after a stop", said.String(), "2 3")
}

// revisit goes through a, which is stepped, to b and, the first time, back.
func revisit(said *tally, inA, inB func(ctx context.Context, at int) error) route {
	return route{Initial: legA, Steps: legs{
		legA: {Do: climb(said, 3, legB, inA)},
		legB: {Do: func(ctx context.Context, c *cargo) (leg, error) {
			said.add("b")
			if c.N++; c.N == 1 {
				return legA, inB(ctx, 0)
			}
			return done, nil
		}},
		done: {Final: true},
	}}
}

func refSteppedRevisit(t *testing.T) {
	b := newBed(t)
	var said tally
	holds := true
	f := flowOf("f", revisit(&said, func(ctx context.Context, at int) error {
		if segno.InfoFrom(ctx).Visit == 1 {
			return nil
		}
		return holdAt(0, &holds)(ctx, at)
	}, func(context.Context, int) error { return nil }))
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	holds = false
	b.start(f).completed(id)
	expect(t, "cursors", said.String(), "0 1 2 b 0 0 1 2 b")
}

func refSteppedRevisitAfterResume(t *testing.T) {
	b := newBed(t)
	var said tally
	holds := true
	f := flowOf("f", revisit(&said, nil, holdAt(0, &holds)))
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	holds = false
	b.start(f).completed(id)
	expect(t, "cursors", said.String(), "0 1 2 b b 0 1 2 b")
}

func refSteppedAtomic(t *testing.T) {
	t.Parallel()
	segnotest.CrashSweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Do: segno.Stepped(func(ctx context.Context, d *sweepData, at *int) (sweepAt, bool, error) {
				fx.Do(ctx, fmt.Sprint("step ", *at))
				err := sweepPaid(ctx, fmt.Sprint("step ", *at))
				*at++
				return sB, *at < 3, err
			})}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", ""), sweepOnce("step 0", "step 1", "step 2")),
	})
}
