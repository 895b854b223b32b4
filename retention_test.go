package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
	"github.com/segnodev/segno/store"
)

const aDay = 24 * time.Hour

// numbers lists the flow's runs, oldest first.
func (l *live) numbers(flow string) string {
	l.t.Helper()
	var ids []string
	for _, r := range l.runs(flow) {
		ids = append(ids, fmt.Sprint(r.ID))
	}
	return strings.Join(ids, " ")
}

// later stops the scheduler, starts it after so long, and lets it delete.
func (b *bed) later(d time.Duration, flows ...segno.Flow) *live {
	b.t.Helper()
	b.stop()
	segnotest.Check(b.t, b.path)
	time.Sleep(d)
	r := b.start(flows...)
	time.Sleep(2 * time.Minute)
	return r
}

// Over the years a run goes when its time has come, and not before.
func TestRunsAreKeptByTheirEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Retention: segno.Retention{Runs: 1}})
		bad := route{Initial: legA, Steps: legs{
			legA: {Do: to(legB), Undo: func(context.Context, cargo) error { return errTest }},
			legB: {Do: fail}, done: {Final: true},
		}}
		flows := []segno.Flow{flowOf("good", one(to(done))), flowOf("fails", one(fail)), flowOf("dirty", bad), {ID: "open", Workflow: one(segno.Sleep[cargo](10*365*aDay, done)), Overlap: segno.Allow(0)}}
		r := b.start(flows...)
		for range 2 {
			r.completed(r.trigger("good", cargo{}))
			r.ended(r.trigger("fails", cargo{}), segno.RunFailed)
			r.ended(r.trigger("dirty", cargo{}), segno.RunUndoFailed)
			r.trigger("open", cargo{})
		}
		time.Sleep(2 * time.Minute)
		left := func(when, want string) {
			t.Helper()
			expect(t, "runs left "+when, strings.Join([]string{r.numbers("good"), r.numbers("fails"), r.numbers("dirty"), r.numbers("open")}, " | "), want)
		}
		left("at once", "1 5 | 2 6 | 3 7 | 4 8")
		r = b.later(29*aDay, flows...)
		left("after 29 days", "1 5 | 2 6 | 3 7 | 4 8")
		r = b.later(aDay, flows...)
		left("after 30 days", "5 | 2 6 | 3 7 | 4 8")
		r = b.later(60*aDay, flows...)
		left("after 90 days", "5 | 6 | 3 7 | 4 8")
		if err := r.AckRun(context.Background(), 3, "as it is"); err != nil {
			t.Fatal(err)
		}
		r = b.later(aDay, flows...)
		left("after the AckRun", "5 | 6 | 7 | 4 8")
		_, err := r.Run(context.Background(), 3)
		expectError(t, "Run of one that was deleted", err, segno.ErrNotFound)
		expect(t, "RunCount", r.status("good").RunCount, 2)
		r = b.later(3*365*aDay, flows...)
		left("after three years", "5 | 6 | 7 | 4 8")
		expect(t, "the next id", r.trigger("good", cargo{}), 9)
	})
}

// UndoRun takes back what AckRun has said.
func TestUndoRunTakesTheAcknowledgementBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", route{Initial: legA, Steps: legs{
			legA: {Do: to(legB), Undo: func(context.Context, cargo) error { return errTest }},
			legB: {Do: fail}, done: {Final: true},
		}}))
		id := r.trigger("f", cargo{})
		r.ended(id, segno.RunUndoFailed)
		err := r.AckRun(context.Background(), id, "as it is")
		expect(t, "Note", r.info(id).Note, "as it is")
		if err = errors.Join(err, r.UndoRun(context.Background(), id)); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunUndoFailed)
		expect(t, "Note after UndoRun", r.info(id).Note, "")
	})
}

// A key lives as long as its run; -1 keeps that for ever.
func TestKeyOfADeletedRun(t *testing.T) {
	for _, keep := range []segno.Retention{{Runs: 1}, {Runs: 1, Completed: -1}, {Runs: -1}, {}} {
		t.Run(fmt.Sprintf("%+v", keep), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(segno.Options{Retention: keep})
				f := flowOf("f", one(to(done)))
				r := b.start(f)
				r.completed(r.triggerWith("f", segno.Trigger{Key: "k"}))
				r.completed(r.trigger("f", cargo{}))
				r = b.later(10*365*aDay, f)
				want := segno.RunID(1)
				if keep == (segno.Retention{Runs: 1}) {
					want = 3
				}
				expect(t, "run of the key", r.triggerWith("f", segno.Trigger{Key: "k"}), want)
			})
		})
	}
}

func TestRetentionIsValidated(t *testing.T) {
	s := segno.New("x.db", segno.Options{Retention: segno.Retention{Runs: -2, MinAge: -2, Completed: -2, Failed: -2, Ledger: -2, Events: -2, MaxVisits: -2}})
	_, err := s.Start(context.Background())
	expectError(t, "Start", err, segno.ErrConfig)
	for _, name := range []string{"Runs", "MinAge", "Completed", "Failed", "Ledger", "Events", "MaxVisits"} {
		expect(t, name+" is named", contains(err.Error(), "Retention."+name+" is negative"), true)
	}
}

// Slots and events go after a year, but not slots of runs that are kept.
func TestSlotsAreKeptForAYear(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Retention: segno.Retention{Runs: 1}})
		f := segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(100 * aDay)}
		b.start(f)
		for range 3 {
			b.later(100*aDay, f)
		}
		slots := func() string {
			return strings.Join(b.rows("SELECT (first - (SELECT anchor FROM _segno_flow)) / 86400000000 FROM _segno_ledger ORDER BY first"), " ")
		}
		expect(t, "slots on record", slots(), "0 100 200 300")
		b.later(165*aDay, f)
		expect(t, "slots on record after 465 days", slots(), "200 300 400")
		b.stop()
		segnotest.Check(t, b.path)
	})
}

// A run that goes round and round keeps its newest visits, and those that its
// rollback needs.
func TestLongRunsAreThinnedOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Retention: segno.Retention{MaxVisits: 50}})
		undone := 0
		loop := route{Initial: legA, Steps: legs{
			legA: {Do: func(_ context.Context, c *cargo) (leg, error) {
				if c.N++; c.N%100 == 7 {
					return legB, nil
				}
				return "c", nil
			}},
			legB: {Do: to("c"), Undo: func(context.Context, cargo) error { undone++; return nil }},
			"c":  {Do: segno.Sleep[cargo](time.Minute, legA)}, done: {Final: true},
		}}
		f := flowOf("f", loop)
		r := b.start(f)
		id := r.triggerWith("f", segno.Trigger{Key: "k", Input: cargo{N: 5}})
		time.Sleep(200 * time.Minute)
		synctest.Wait()
		segnotest.Check(t, b.path)
		entries := r.entries(id)
		if len(entries) < 50 || len(entries) > 70 {
			t.Errorf("entries of some 400 visits: got = %d, want 50 to 70", len(entries))
		}
		_, err := r.Rerun(context.Background(), id)
		expectError(t, "Rerun", err, segno.ErrNotFound)
		expect(t, "the run of the key", r.triggerWith("f", segno.Trigger{Key: "k", Input: cargo{N: 6}}), id)
		r = b.later(0, f)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		expect(t, "undos", undone, 3)
		segnotest.Check(t, b.path)
	})
}

// What cannot be deleted is told, matters to nobody, and is tried again.
func TestFailedRetentionIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		b.opts.Retention.Runs = 1
		f := flowOf("f", one(to(done)))
		r := b.start(f)
		r.completed(r.trigger("f", cargo{}))
		r.completed(r.trigger("f", cargo{}))
		b.stop()
		b.exec("CREATE TRIGGER stubborn BEFORE DELETE ON _segno_run BEGIN SELECT RAISE(ABORT, 'it stays'); END")
		r = b.later(31*aDay, f)
		failed := w.Kind(segno.EventCleanupFailed)
		if len(failed) == 0 || !contains(fmt.Sprint(failed[0].Err), "it stays") {
			t.Fatalf("told: got = %v, want that it stays", failed)
		}
		r.completed(r.trigger("f", cargo{}))
		expect(t, "runs left", r.numbers("f"), "1 2 3")
		b.stop()
		b.exec("DROP TRIGGER stubborn")
		r = b.later(0, f)
		expect(t, "runs left in the end", r.numbers("f"), "3")
	})
}

// Killed before or after any of its commits, deleting comes to the same end.
func TestSweepRetention(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: func(*sweepFX) segno.Options {
			return segno.Options{Retention: segno.Retention{Runs: 1, MinAge: time.Minute, Completed: time.Minute, Failed: time.Minute, Ledger: time.Minute, Events: time.Minute, MaxVisits: 5}}
		},
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute), MaxRuns: 4, Backoff: segno.BackoffPolicy{Initial: -1}}, func(ctx context.Context, fx *sweepFX, slot time.Duration) error {
			if slot == time.Minute {
				return errSweep
			}
			return sweepTick(ctx, fx, slot)
		}),
		Drive: sweepUntil(150 * time.Minute),
		Check: func(o *segnotest.Outcome) error {
			if len(o.Runs) != 1 {
				return fmt.Errorf("runs left: got = %d, want 1", len(o.Runs))
			}
			return sweepSlots("3m0s..3m0s ×1 fired")(o)
		},
	})
}

// Every run, slot and event is kept for ever.
func ExampleRetention() {
	s := segno.New("orders.db", segno.Options{
		Retention: segno.Retention{Runs: -1, Ledger: -1, Events: -1, MaxVisits: -1},
	})
	fmt.Println(s.IsEmpty())
	// Output: true
}

// A run too long to go at once can be read, and is sound, when half of it is gone.
func TestLongRunsAreDeletedInParts(t *testing.T) {
	for _, end := range []struct {
		name string
		do   do
	}{{"completed", to(done)}, {"failed", fail}} {
		t.Run(end.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(segno.Options{Retention: segno.Retention{Runs: 1}})
				loop := route{Initial: legA, Steps: legs{
					legA: {Do: func(_ context.Context, c *cargo) (leg, error) {
						if c.N++; c.N < 400 {
							return legA, nil
						}
						return legB, nil
					}, Undo: func(context.Context, cargo) error { return nil }},
					legB: {Do: end.do}, done: {Final: true},
				}}
				f := flowOf("f", loop)
				r := b.start(f)
				id := r.trigger("f", cargo{})
				_, _ = r.WaitRun(context.Background(), id)
				_, _ = r.WaitRun(context.Background(), r.trigger("f", cargo{N: 400}))
				b.stop()
				b.exec("CREATE TRIGGER stubborn BEFORE DELETE ON _segno_run BEGIN SELECT RAISE(ABORT, 'it stays'); END")
				r = b.later(100*aDay, f)
				if n := len(r.entries(id)); n == 0 || n >= store.PruneRows {
					t.Errorf("entries left: got = %d, want fewer than fit in a request, and some", n)
				}
				b.stop()
				segnotest.Check(t, b.path)
				b.exec("DROP TRIGGER stubborn")
				r = b.later(0, f)
				expect(t, "runs left", r.numbers("f"), fmt.Sprint(id+1))
			})
		})
	}
}

// Runs with much data go a few at a time: one that cannot be deleted keeps only
// its neighbours in the file.
func TestLargeRunsAreDeletedFewAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Retention: segno.Retention{Runs: 1}})
		f := flowOf("f", segno.Workflow[leg, string]{Initial: legA, Steps: segno.Steps[leg, string]{
			legA: {Do: func(context.Context, *string) (leg, error) { return done, nil }}, done: {Final: true},
		}})
		r := b.start(f)
		for range 10 {
			r.completed(r.triggerWith("f", segno.Trigger{Input: strings.Repeat("x", 1<<20-2)}))
		}
		b.stop()
		b.exec("CREATE TRIGGER stubborn BEFORE DELETE ON _segno_run WHEN old.run = 9 BEGIN SELECT RAISE(ABORT, 'it stays'); END")
		r = b.later(100*aDay, f)
		if left := len(r.runs("f")); left < 2 || left > 6 {
			t.Errorf("runs left: got = %d, want the one that stays, the newest and few others", left)
		}
	})
}

// The file becomes smaller behind what was deleted, but for some free pages.
func TestFileShrinksWhenNothingIsWritten(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Retention: segno.Retention{Runs: 1}})
		f := flowOf("f", segno.Workflow[leg, string]{Initial: legA, Steps: segno.Steps[leg, string]{
			legA: {Do: func(context.Context, *string) (leg, error) { return done, nil }}, done: {Final: true},
		}})
		r := b.start(f)
		for range 4 {
			r.completed(r.triggerWith("f", segno.Trigger{Input: strings.Repeat("x", 1<<20-2)}))
		}
		before := b.rows("PRAGMA page_count")[0]
		b.later(31*aDay, f)
		b.stop()
		if free := b.rows("SELECT freelist_count < 1100 FROM pragma_freelist_count")[0]; free != "1" {
			t.Error("free pages: got = many, want about 1,024")
		}
		if after := b.rows("PRAGMA page_count")[0]; len(after) > len(before) || after >= before {
			t.Errorf("pages: got = %s, want fewer than %s", after, before)
		}
	})
}
