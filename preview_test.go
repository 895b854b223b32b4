package segno_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// nexter is what can be asked for a preview: a running scheduler, and a Reader.
type nexter interface {
	Next(ctx context.Context, flow string, n int) ([]segno.SlotPreview, error)
}

// preview returns the next slots in short, as offsets from begin.
func preview(t *testing.T, r nexter, begin time.Time, flow string, n int) string {
	t.Helper()
	list, err := r.Next(context.Background(), flow, n)
	if err != nil {
		t.Fatalf("Next(%q): got error %v, want none", flow, err)
	}
	var words []string
	for _, p := range list {
		word := p.Slot.Sub(begin).String()
		if d := p.Due.Sub(p.Slot); d != 0 {
			word += "+" + d.String()
		}
		if p.Skipped != (p.Reason != "") {
			t.Errorf("slot %s: got skipped %v with reason %q", word, p.Skipped, p.Reason)
		}
		if p.Skipped {
			word += " " + p.Reason
		}
		if p.Note != "" {
			word += ": " + p.Note
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// reader opens the file beside its owner.
func (b *bed) reader() *segno.Reader {
	b.t.Helper()
	r, err := segno.OpenReader(context.Background(), b.path)
	if err != nil {
		b.t.Fatalf("OpenReader: got error %v, want none", err)
	}
	b.t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestNextSaysWhatWillBecomeOfTheSlots(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Minute)}
		r := b.start(f, flowOf("manual", one(to(done))))
		synctest.Wait()
		expect(t, "plain", preview(t, r, begin, "f", 3), "1m0s, 2m0s, 3m0s")
		expect(t, "manual", preview(t, r, begin, "manual", 3), "")
		r.skipSlot("f", begin.Add(2*time.Minute), "closed")
		r.skipSlot("f", begin.Add(4*time.Minute), "")
		r.pause("f", segno.Pause{Note: "audit", Until: begin.Add(3 * time.Minute)})
		want := "1m0s paused: audit, 2m0s skipped_by_user: closed, 3m0s, 4m0s skipped_by_user, 5m0s"
		expect(t, "paused until 3 min", preview(t, r, begin, "f", 5), want)
		expect(t, "for a reader", preview(t, b.reader(), begin, "f", 5), want)
		r = b.restart(f)
		expect(t, "after a restart", preview(t, r, begin, "f", 5), want)
		time.Sleep(330 * time.Second)
		expect(t, "what became of them", b.notes("f"), "fired 1, skipped 1 paused, skipped 1 skipped_by_user: closed, fired 1, skipped 1 skipped_by_user, fired 1")
		expect(t, "the manual flow, which is not registered any more", preview(t, r, begin, "manual", 3), "")
	})
}

func TestNextKnowsTheBackoffWindowTheTripAndTheOrphans(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		begin := time.Now()
		f := segno.Flow{
			ID: "f", Workflow: one(fail), Schedule: segno.Every(time.Minute),
			Backoff: segno.BackoffPolicy{Initial: 150 * time.Second, Jitter: -1, StreakLimit: 2},
		}
		r := b.start(f)
		synctest.Wait()
		expect(t, "in the window", preview(t, r, begin, "f", 4), "1m0s backoff, 2m0s backoff, 3m0s, 4m0s")
		time.Sleep(200 * time.Second)
		expect(t, "tripped", preview(t, r, begin, "f", 2), "4m0s tripped, 5m0s tripped")
		r = b.restart()
		expect(t, "orphaned", preview(t, r, begin, "f", 2), "4m0s orphaned, 5m0s orphaned")
	})
}

func TestNextEndsWithTheBounds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		begin := time.Now()
		r := newBed(t).start(
			segno.Flow{ID: "end", Workflow: one(to(done)), Schedule: segno.Every(time.Minute), EndAt: begin.Add(2 * time.Minute)},
			segno.Flow{ID: "max", Workflow: one(to(done)), Schedule: segno.Every(time.Minute), MaxRuns: 3},
			segno.Flow{ID: "start", Workflow: one(to(done)), Schedule: segno.Cron("* * * * *"), StartAt: begin.Add(time.Hour)},
			segno.Flow{ID: "once", Workflow: one(to(done)), Schedule: segno.At(begin.Add(time.Hour))},
			segno.Flow{ID: "delay", Workflow: one(to(done)), Schedule: segno.FixedDelay(time.Minute)},
			segno.Flow{ID: "busy", Workflow: one(hold), Schedule: segno.FixedDelay(time.Minute)},
		)
		synctest.Wait()
		r.skipNext("max", "")
		for _, c := range []struct{ flow, want string }{
			{"end", "1m0s, 2m0s"},
			{"max", "1m0s skipped_by_user, 2m0s, 3m0s"},
			{"start", "1h0m0s, 1h1m0s, 1h2m0s, 1h3m0s, 1h4m0s"},
			{"once", "1h0m0s"},
			{"delay", "1m0s"},
			{"busy", ""},
		} {
			expect(t, c.flow, preview(t, r, begin, c.flow, 5), c.want)
		}
	})
}

func TestNextShowsTheJitter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		begin := time.Now()
		var s tries
		f := segno.Flow{ID: "f", Workflow: one(s.counting(to(done))), Schedule: segno.Cron("0 * * * *"), Jitter: 20 * time.Minute}
		r := b.start(f)
		synctest.Wait()
		list, err := r.Next(context.Background(), "f", 3)
		if err != nil || len(list) != 3 {
			t.Fatalf("Next: got %v, %v, want three slots", list, err)
		}
		reader, err := b.reader().Next(context.Background(), "f", 1)
		if err != nil || len(reader) != 1 || !reader[0].Due.Equal(list[0].Due) {
			t.Errorf("for a reader: got %v, %v, want the same for the next slot: %v", reader, err, list[0])
		}
		time.Sleep(list[0].Due.Sub(begin) - time.Second)
		expect(t, "a slot that waits for its jitter is still to come", strings.HasPrefix(preview(t, r, begin, "f", 1), "1h0m0s+"), true)
		time.Sleep(3 * time.Hour)
		for i, p := range list {
			expect(t, fmt.Sprint("slot ", i), p.Slot, begin.Add(time.Duration(i+1)*time.Hour).UTC())
			expect(t, fmt.Sprint("call ", i), s.call(i+1).UTC(), p.Due)
		}
	})
}

func TestNextRefusesWhatItCannotDo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		for _, c := range []struct {
			flow string
			n    int
			want error
		}{{"f", 0, segno.ErrConfig}, {"f", 10_001, segno.ErrConfig}, {"x", 1, segno.ErrNotFound}} {
			_, err := r.Next(context.Background(), c.flow, c.n)
			expectError(t, fmt.Sprintf("Next(%q, %d)", c.flow, c.n), err, c.want)
		}
	})
}
