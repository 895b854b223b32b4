package segno_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceModel are the acceptance scenarios in which several processing models
// take part, and those of the engine about cursors and cancels.
var referenceModel = map[string]func(*testing.T){
	"X04_chain_models":      refTimed(refChainModels),
	"X05_pipeline_resume":   refTimed(refPipelineResume),
	"R36_stepped_rows":      refTimed(refSteppedRows),
	"R37_stepped_resume":    refTimed(refSteppedResume),
	"R38_stepped_no_cursor": refTimed(refSteppedNoCursor),
	"R39_stepped_retry":     refTimed(refSteppedRetry),
	"R40_stale_cursor":      refTimed(refSteppedRevisitAfterResume),
	"R42_sigkill_step":      refSteppedKill,
	"R43_pipeline_resume":   refTimed(refPipelineResume),
	"G21_cursor_not_comp":   refTimed(refCursorNotUndone),
	"C13_every_kind":        refTimed(refCancelEveryKind),
	"C14_stream_drain":      refTimed(refStreamStopResume),
	"S44_cancel_each_kind":  refTimed(refCancelEveryKind),
}

// pipeline polls, then works on a batch, and ends with last.
func pipeline(said *tally, last do) route {
	return route{Initial: "route", Steps: legs{
		"route": {Do: to("poll")},
		"poll": {Do: segno.Poll(func(_ context.Context, c *cargo) (leg, time.Duration, error) {
			if said.add("poll"); c.N == 0 {
				c.N = 1
				return "", time.Second, nil
			}
			return "batch", 0, nil
		})},
		"batch": {Do: segno.Batch(func(context.Context, cargo) ([]int, error) { said.add("load"); return []int{1, 2}, nil },
			func(_ context.Context, i int) (int, error) { said.add("item%d", i); return 10 * i, nil },
			func(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
				c.N += all[0].Value + all[1].Value
				return "last", nil
			})},
		"last": {Do: last},
		done:   {Final: true},
	}}
}

func refChainModels(t *testing.T) {
	var said tally
	r := newBed(t).start(flowOf("f", pipeline(&said, climb(&said, 3, done, nil))))
	id := r.trigger("f", cargo{})
	r.completed(id)
	expect(t, "calls", said.String(), "poll poll load item1 item2 0 1 2")
	expect(t, "log", r.log(id), "enter route, enter poll, enter batch, enter last, end done")
	expect(t, "data", string(r.info(id).Data), `{"n":31}`)
}

func refPipelineResume(t *testing.T) {
	b := newBed(t)
	var said tally
	f := flowOf("f", pipeline(&said, segno.Stream(inCount(numbered(&said, 5, time.Minute), 2))))
	id := b.start(f).trigger("f", cargo{})
	time.Sleep(3*time.Minute + time.Second + time.Millisecond)
	b.kill()
	r := b.start(f)
	r.completed(id)
	expect(t, "calls", said.String(), "poll poll load item1 item2 open [1 2] open:2 [3 4] [5] close")
	expect(t, "log", r.log(id), "enter route, enter poll, enter batch, enter last, crash last, end done")
}

func refSteppedResume(t *testing.T) {
	b := newBed(t)
	var said tally
	holds := true
	f := flowOf("f", one(climb(&said, 4, done, holdAt(2, &holds))))
	id := b.start(f).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	holds = false
	said.take()
	b.start(f).completed(id)
	expect(t, "cursors", said.String(), "2 3")
}

// What a rollback undoes are visits, with the data as they left it; the cursors
// between them are nothing to undo.
func refCursorNotUndone(t *testing.T) {
	var said, steps tally
	w := saga(2, &said, fail)
	change(w, "s2", func(s *segno.Step[leg, cargo]) { s.Do = climb(&steps, 3, "s3", nil) })
	r := newBed(t).start(flowOf("f", w))
	id := r.trigger("f", cargo{})
	r.failed(id)
	expect(t, "cursors", steps.String(), "0 1 2")
	expect(t, "undone", said.String(), "s2:1 s1:1")
	expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, rollback s3, undone s2, undone s1, end s3")
}

// everyKind are steps that take an hour, none of which may come to its end.
func everyKind(said *tally) map[string]do {
	rest := func(ctx context.Context) error { return sweepRest(ctx, time.Hour) }
	finish := func(context.Context, *cargo) (leg, error) { said.add("finished"); return done, nil }
	merge := func(ctx context.Context, c *cargo, _ []segno.Settled[int]) (leg, error) { return finish(ctx, c) }
	return map[string]do{
		"router": func(ctx context.Context, _ *cargo) (leg, error) { return done, rest(ctx) },
		"poll":   segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) { return "", time.Minute, nil }),
		"timer":  segno.Timer(func(context.Context, *cargo) (time.Time, error) { return time.Now().Add(time.Hour), nil }, finish),
		"batch":  segno.Batch(func(context.Context, cargo) ([]int, error) { return []int{1, 2}, nil }, func(ctx context.Context, i int) (int, error) { return i, rest(ctx) }, merge),
		"split":  segno.Split(segno.Join{}, merge, func(ctx context.Context, _ cargo) (int, error) { return 1, rest(ctx) }),
		"stepped": segno.Stepped(func(ctx context.Context, _ *cargo, at *int) (leg, bool, error) {
			*at++
			return "", true, sweepRest(ctx, time.Second)
		}),
		"stream": segno.Stream(inCount(numbered(said, 9, time.Hour), 2)),
		"await":  segno.Await("x", func(ctx context.Context, c *cargo, _ int) (leg, error) { return finish(ctx, c) }),
		"call":   callOf(said, double(time.Hour), done),
	}
}

func refCancelEveryKind(t *testing.T) {
	var said, undone tally
	b := newBed(t)
	flows, kinds := []segno.Flow{flowOf("g", double(time.Hour))}, everyKind(&said)
	for name, step := range kinds {
		flows = append(flows, flowOf(name, saga(1, &undone, step)))
	}
	r := b.start(flows...)
	ids := map[string]segno.RunID{}
	for name := range kinds {
		ids[name] = r.trigger(name, cargo{})
	}
	time.Sleep(10*time.Second + time.Millisecond)
	begin := time.Now()
	for name := range kinds {
		if err := r.CancelFlow(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range ids {
		if name == "call" {
			_, err := r.WaitRun(context.Background(), id)
			expectError(t, name, err, context.Canceled)
			continue
		}
		r.ended(id, segno.RunCancelled)
		expect(t, name+": status of the flow", fmt.Sprintf("%s %d", r.status(name).Status, r.status(name).Open), "idle 0")
	}
	expect(t, "took", time.Since(begin), 0)
	expect(t, "undone", undone.len(), len(kinds))
	expect(t, "finish callbacks", said.String(), "open")
	expect(t, "running flows", r.HasRunningFlows(), false)
}
