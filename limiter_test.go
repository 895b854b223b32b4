package segno_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// take takes n that must be there.
func take(t *testing.T, what string, l segno.Limiter, n int) {
	t.Helper()
	if err := l.TryTake(n); err != nil {
		t.Errorf("%s: TryTake(%d): got error %v, want none", what, n, err)
	}
}

// setAside reserves n that must be there.
func setAside(t *testing.T, l segno.Limiter, n int) *segno.Reservation {
	t.Helper()
	res, err := l.Reserve(n)
	if err != nil {
		t.Fatalf("Reserve(%d): got error %v, want none", n, err)
	}
	return res
}

// expectLimited asserts that n is not there, and returns the refusal.
func expectLimited(t *testing.T, what string, l segno.Limiter, n int) *segno.RateLimited {
	t.Helper()
	err := l.TryTake(n)
	expectError(t, what, err, segno.ErrRateLimited)
	var limited *segno.RateLimited
	if !errors.As(err, &limited) {
		t.Fatalf("%s: TryTake(%d): got %v, want a *RateLimited", what, n, err)
	}
	return limited
}

// takeAll takes one at a time until none is left, and returns how many it were.
func takeAll(l segno.Limiter) (n int) {
	for l.TryTake(1) == nil {
		n++
	}
	return n
}

// forever is the RetryAfter of what can never be had.
const forever = time.Duration(math.MaxInt64)

func TestABucketStartsFull(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, c := range []struct {
			b    *segno.Bucket
			want int
		}{
			{&segno.Bucket{Limit: 5}, 5},
			{&segno.Bucket{Limit: 2, Burst: 5}, 7},
			{&segno.Bucket{Limit: 1, Per: 1000000 * time.Hour}, 1},
		} {
			expect(t, "Remaining", c.b.Remaining(), c.want)
			expect(t, "taken at once", takeAll(c.b), c.want)
			expect(t, "Remaining when empty", c.b.Remaining(), 0)
		}
	})
}

func TestABucketFillsEvenly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &segno.Bucket{Name: "rps", Limit: 100}
		takeAll(b)
		limited := expectLimited(t, "empty", b, 1)
		expect(t, "RetryAfter", limited.RetryAfter, 10*time.Millisecond)
		expect(t, "Tier", limited.Tier, "rps")
		expect(t, "text", limited.Error(), `segno: rate limited by "rps": retry after 10ms`)
		time.Sleep(limited.RetryAfter)
		take(t, "after RetryAfter", b, 1)
		expect(t, "RetryAfter of 30", expectLimited(t, "empty", b, 30).RetryAfter, 300*time.Millisecond)
		time.Sleep(time.Hour)
		expect(t, "after a long time", takeAll(b), 100)

		one := &segno.Bucket{Limit: 1, Per: 10 * time.Millisecond}
		begin := time.Now()
		for range 3 {
			if err := one.Wait(context.Background(), 1); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, "three waits, the first for nothing", time.Since(begin), 20*time.Millisecond)
		fast := &segno.Bucket{Limit: 1000000}
		takeAll(fast)
		expect(t, "the shortest RetryAfter", expectLimited(t, "empty", fast, 1).RetryAfter, time.Millisecond)
	})
}

func TestCostsAreWeighed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		type limiter interface {
			segno.Limiter
			Remaining() int
		}
		for name, l := range map[string]limiter{
			"bucket": &segno.Bucket{Limit: 10, Per: time.Hour},
			"window": &segno.Window{Limit: 10, Per: time.Hour},
		} {
			take(t, name, l, 3)
			expect(t, name+": Remaining", l.Remaining(), 7)
			for range 100 {
				take(t, name, l, 0)
			}
			expect(t, name+": Remaining after a hundred times nothing", l.Remaining(), 7)
			for _, n := range []int{11, math.MaxInt} {
				expect(t, name+": RetryAfter above the capacity", expectLimited(t, name, l, n).RetryAfter, forever)
			}
			expectError(t, name+": a negative cost", l.TryTake(-1), segno.ErrConfig)
			expectLimited(t, name+", one too many", l, 8)
			expect(t, name+": Remaining after refusals", l.Remaining(), 7)
			take(t, name+", the rest", l, 7)
			expect(t, name+": Remaining", l.Remaining(), 0)
		}
	})
}

func TestWhatCanNeverBeHadIsNotWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Name: "day", Limit: 10, Per: 24 * time.Hour}
		for name, l := range map[string]segno.Limiter{
			"bucket": &segno.Bucket{Limit: 5, Burst: 5}, "window": w,
			"tiers": segno.Tiers{{Name: "many", Limiter: &segno.Bucket{Limit: 1000000}}, {Limiter: w}},
			"costs": segno.Tiers{{Name: "heavy", Limiter: w, Cost: math.MaxInt}},
		} {
			begin := time.Now()
			expectError(t, name+": Wait", l.Wait(context.Background(), 11), segno.ErrRateLimited)
			expect(t, name+": waited", time.Since(begin), 0)
			_, err := l.Reserve(11)
			expectError(t, name+": Reserve", err, segno.ErrRateLimited)
			expect(t, name+": the text says so", contains(fmt.Sprint(err), "never be had"), true)
		}
		// Full for an hour, but the other tier will never have it.
		hour := &segno.Window{Limit: 1, Per: time.Hour}
		takeAll(hour)
		both := segno.Tiers{{Name: "hour", Limiter: hour}, {Name: "day", Limiter: w, Cost: 11}}
		limited := expectLimited(t, "both", both, 1)
		expect(t, "RetryAfter", limited.RetryAfter, forever)
		expect(t, "Tier", limited.Tier, "day")
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Limit: 1, Per: time.Hour}
		takeAll(w)
		for name, l := range map[string]segno.Limiter{"window": w, "tiers": segno.Tiers{{Limiter: w}}} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			begin := time.Now()
			expectError(t, name, l.Wait(ctx, 1), context.DeadlineExceeded)
			expect(t, name+": waited", time.Since(begin), time.Second)
			expectError(t, name+", ended already", l.Wait(ctx, 1), context.DeadlineExceeded)
			cancel()
		}
		expect(t, "used", w.Used(), 1)
	})
}

// An absurdly slow refill is long, but not for ever, and overflows nothing.
func TestAnExtremeBucketSaturates(t *testing.T) {
	b := &segno.Bucket{Limit: 1, Burst: math.MaxInt, Per: math.MaxInt64}
	take(t, "the whole capacity", b, math.MaxInt)
	limited := expectLimited(t, "empty", b, math.MaxInt)
	expect(t, "RetryAfter", limited.RetryAfter, forever-1)
}

func TestAReservationIsRefundedOrKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bucket, window := &segno.Bucket{Limit: 10, Per: time.Hour}, &segno.Window{Limit: 10, Per: time.Hour}
		for name, c := range map[string]struct {
			l    segno.Limiter
			left func() int
		}{
			"bucket": {bucket, bucket.Remaining}, "window": {window, window.Remaining},
		} {
			res := setAside(t, c.l, 4)
			expect(t, name+": Remaining while reserved", c.left(), 6)
			res.Refund()
			res.Refund()
			expect(t, name+": Remaining after the refund", c.left(), 10)
			res = setAside(t, c.l, 4)
			res.Commit()
			res.Refund() // deferred, say
			expect(t, name+": Remaining after the commit", c.left(), 6)
			setAside(t, c.l, 0).Refund()
			expect(t, name+": Remaining after nothing was refunded", c.left(), 6)
		}
		full := &segno.Bucket{Limit: 10}
		res := setAside(t, full, 4)
		time.Sleep(time.Minute)
		res.Refund()
		expect(t, "Remaining in a bucket that was full", full.Remaining(), 10)
		expect(t, "taken from it", takeAll(full), 10)
		var none *segno.Reservation
		none.Refund() // of a refused Reserve
		none.Commit()
	})
}

func TestAWindowGivesItsQuotaAndOpensAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Name: "w", Limit: 1000, Per: 50 * time.Millisecond}
		expect(t, "ResetsAt before the first use", w.ResetsAt().IsZero(), true)
		time.Sleep(time.Second)
		begin := time.Now()
		take(t, "600", w, 600)
		expect(t, "ResetsAt", w.ResetsAt().Equal(begin.Add(50*time.Millisecond)), true)
		time.Sleep(20 * time.Millisecond)
		expect(t, "RetryAfter of 600 more", expectLimited(t, "600 more", w, 600).RetryAfter, 30*time.Millisecond)
		take(t, "400 more", w, 400)
		expect(t, "Used", w.Used(), 1000)
		expect(t, "Remaining", w.Remaining(), 0)
		time.Sleep(30*time.Millisecond - time.Nanosecond)
		expect(t, "the shortest RetryAfter", expectLimited(t, "just before the end", w, 1).RetryAfter, time.Millisecond)
		time.Sleep(time.Nanosecond)
		expect(t, "Used behind the end", w.Used(), 0)
		expect(t, "Remaining behind the end", w.Remaining(), 1000)
		expect(t, "ResetsAt behind the end", w.ResetsAt().IsZero(), true)
		time.Sleep(time.Second)
		take(t, "in the next window", w, 1000)
		if err := w.Wait(context.Background(), 1); err != nil {
			t.Fatal(err)
		}
		expect(t, "waited until the window after it", time.Since(begin), 50*time.Millisecond+time.Second+50*time.Millisecond)
		expect(t, "Per of the zero value", expectLimited(t, "default", drained(&segno.Window{Limit: 1}), 1).RetryAfter, time.Second)
	})
}

// drained is a window with nothing left.
func drained(w *segno.Window) *segno.Window {
	takeAll(w)
	return w
}

func TestARefundFromAnEarlierWindowIsIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Limit: 10, Per: time.Minute}
		old, older := setAside(t, w, 3), setAside(t, w, 3)
		time.Sleep(time.Minute)
		take(t, "in the next window", w, 5)
		old.Refund()
		older.Commit()
		expect(t, "Used", w.Used(), 5)
	})
}

func TestTiersTakeAllOrNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		first := &segno.Window{Limit: 100, Per: time.Hour}
		second := &segno.Window{Name: "own", Limit: 5, Per: 24 * time.Hour}
		third := &segno.Window{Limit: 100, Per: time.Hour}
		tiers := segno.Tiers{{Name: "first", Limiter: first}, {Name: "second", Limiter: second, Cost: 2}, {Name: "third", Limiter: third}}
		take(t, "all have it", tiers, 2)
		used := func() string { return fmt.Sprint(first.Used(), second.Used(), third.Used()) }
		expect(t, "used", used(), "2 4 2")
		for range 10 {
			limited := expectLimited(t, "the second is empty", tiers, 1)
			expect(t, "Tier", limited.Tier, "second")
			expect(t, "RetryAfter", limited.RetryAfter, 24*time.Hour)
		}
		expect(t, "used after ten refusals", used(), "2 4 2")
		res := setAside(t, tiers.Only("first", "third", "unknown"), 3)
		expect(t, "used of two tiers", used(), "5 4 5")
		res.Refund()
		expect(t, "used after the refund", used(), "2 4 2")
		setAside(t, tiers.Only("third"), 3).Commit()
		expect(t, "used after the commit", used(), "2 4 5")
		expectLimited(t, "without names it is all of them", tiers.Only(), 1)
		take(t, "an unknown name enforces nothing", tiers.Only("unknown"), 1000)
		take(t, "no tiers admit everything", segno.Tiers{}, 1000)
		take(t, "nor does none at all refuse", segno.Tiers(nil), 1000)
		expect(t, "an unnamed tier has its limiter's name", expectLimited(t, "unnamed", segno.Tiers{{Limiter: second, Cost: 2}}, 1).Tier, "own")
		take(t, "once", segno.Tiers{{Limiter: third}, {Limiter: third}}, 1)
		expect(t, "a limiter in two tiers is charged twice", third.Used(), 7)
	})
}

func TestTiersWaitForTheSlowest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		second, minute := &segno.Bucket{Limit: 2}, &segno.Window{Limit: 3, Per: time.Minute}
		tiers := segno.Tiers{{Name: "second", Limiter: second}, {Name: "minute", Limiter: minute}}
		begin := time.Now()
		var at []time.Duration
		for range 5 {
			if err := tiers.Wait(context.Background(), 1); err != nil {
				t.Fatal(err)
			}
			at = append(at, time.Since(begin))
		}
		expect(t, "served at", fmt.Sprint(at), "[0s 0s 500ms 1m0s 1m0s]")
	})
}

func TestLimitersNeverGiveTooMuch(t *testing.T) {
	for name, c := range map[string]struct {
		l          segno.Limiter
		want, asks int
	}{
		"bucket": {&segno.Bucket{Limit: 10, Per: time.Hour}, 10, 40},
		"window": {&segno.Window{Limit: 10, Per: time.Hour}, 10, 40},
		"tiers": {segno.Tiers{{Limiter: &segno.Bucket{Limit: 100, Per: time.Hour}}, {Limiter: &segno.Window{Limit: 5, Per: time.Hour}}},
			5, 24},
	} {
		var asks sync.WaitGroup
		var got atomic.Int64
		for range c.asks {
			asks.Go(func() {
				if c.l.TryTake(1) == nil {
					got.Add(1)
				}
			})
		}
		asks.Wait()
		expect(t, name+": admitted", int(got.Load()), c.want)
	}
}

func TestLimitersOfBadConfigurationAreRefused(t *testing.T) {
	for name, l := range map[string]segno.Limiter{
		"a bucket without a Limit": &segno.Bucket{}, "a negative Limit": &segno.Bucket{Limit: -1}, "a negative Per": &segno.Bucket{Limit: 1, Per: -1},
		"a negative Burst": &segno.Bucket{Limit: 1, Burst: -1}, "a nil bucket": (*segno.Bucket)(nil),
		"a window without a Limit": &segno.Window{}, "a window's negative Per": &segno.Window{Limit: 1, Per: -1}, "a nil window": (*segno.Window)(nil),
		"a tier without a Limiter": segno.Tiers{{Name: "x"}}, "a tier with a bad one": segno.Tiers{{Limiter: &segno.Bucket{}}},
		"a negative Cost": segno.Tiers{{Limiter: &segno.Bucket{Limit: 1}, Cost: -1}},
	} {
		expectError(t, name+": TryTake", l.TryTake(1), segno.ErrConfig)
		expectError(t, name+": Wait", l.Wait(context.Background(), 1), segno.ErrConfig)
		err := segno.New("never-opened.db", segno.Options{}).Manual("f", oneStep(segno.Step[leg, cargo]{Do: to(done), Limiter: l}))
		expectError(t, name+": Manual", err, segno.ErrConfig)
		_, err = segno.New("never-opened.db", segno.Options{Limiters: []segno.Limiter{l}}).Start(context.Background())
		expectError(t, name+": Start", err, segno.ErrConfig)
	}
	expectError(t, "a negative cost", segno.Tiers{}.TryTake(-1), segno.ErrConfig)
	expect(t, "Remaining of a bad bucket", (&segno.Bucket{}).Remaining(), 0)
	_, err := segno.New("never-opened.db", segno.Options{Limiters: []segno.Limiter{nil}}).Start(context.Background())
	expectError(t, "a nil in Options.Limiters", err, segno.ErrConfig)
	final := route{Initial: legA, Steps: legs{legA: {Do: to(done)}, done: {Final: true, Limiter: &segno.Bucket{Limit: 1}}}}
	expectError(t, "a final state with a Limiter", segno.New("never-opened.db", segno.Options{}).Manual("f", final), segno.ErrConfig)
}
