package segno_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// crowd counts how many steps execute at a time.
type crowd struct {
	mu        sync.Mutex
	now, most int
	order     []string
}

func (c *crowd) enter(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.most = max(c.most, c.now)
	c.order = append(c.order, name)
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
}

func (c *crowd) said() (order string, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.order, " "), c.most
}

// work takes d and counts.
func (c *crowd) work(d time.Duration) route {
	return one(func(ctx context.Context, data *cargo) (leg, error) {
		c.enter(data.Text)
		defer c.leave()
		time.Sleep(d)
		return done, nil
	})
}

func TestAllowLetsThatManyExecuteAndTheOthersWaitInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c crowd
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: c.work(time.Second), Overlap: segno.Allow(3)})
		var ids []segno.RunID
		var want []string
		for n := range 12 {
			name := fmt.Sprint(n)
			ids, want = append(ids, r.trigger("f", cargo{Text: name})), append(want, name)
		}
		synctest.Wait()
		for i, id := range ids {
			status := segno.RunPending
			if i < 3 {
				status = segno.RunRunning
			}
			expect(t, fmt.Sprintf("status of run %d", i), r.info(id).Status, status)
		}
		expect(t, "open runs", r.status("f").Open, 12)
		begin := time.Now()
		for _, id := range ids {
			r.completed(id)
		}
		expect(t, "took", time.Since(begin), 4*time.Second)
		order, most := c.said()
		expect(t, "most at a time", most, 3)
		for i, name := range strings.Fields(order) { // three at a time begin in any order
			var n int
			_, _ = fmt.Sscan(name, &n)
			if n/3 != i/3 {
				t.Errorf("order: got = %s, want %s", order, strings.Join(want, " "))
				break
			}
		}
	})
}

func TestPendingRunsAreServedByDueTimeThenRunID(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c crowd
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: c.work(10 * time.Second), Overlap: segno.Allow(1)})
		begin := time.Now()
		r.trigger("f", cargo{Text: "first"})
		at := func(d time.Duration, name string) segno.RunID {
			return r.triggerWith("f", segno.Trigger{At: begin.Add(d), Input: cargo{Text: name}})
		}
		at(3*time.Second, "at3")
		at(2*time.Second, "at2")
		at(2*time.Second, "at2'")
		at(2*time.Second, "at2''")
		time.Sleep(time.Second)
		r.trigger("f", cargo{Text: "now1"})
		time.Sleep(3 * time.Second)
		last := r.trigger("f", cargo{Text: "now4"})
		r.completed(last)
		order, most := c.said()
		expect(t, "order", order, "first now1 at2 at2' at2'' at3 now4")
		expect(t, "most at a time", most, 1)
	})
}

// A run that waits for the end of another one must not keep it from its end.
func TestAParkedRunGoesOnBeforeOneThatWaitsForItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(segno.Sleep[cargo](time.Hour, done)), Overlap: segno.Skip})
		begin := time.Now()
		second := r.triggerWith("f", segno.Trigger{At: begin.Add(time.Minute)}) // due before the first is to go on
		r.completed(r.trigger("f", cargo{}))
		r.completed(second)
		expect(t, "both took", time.Since(begin), 2*time.Hour)
	})
}

func TestANewRunDoesNotOvertakeThoseThatWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c crowd
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: c.work(time.Second), Overlap: segno.Allow(1)})
		for round := range 10 {
			first := r.trigger("f", cargo{Text: "1"})
			second, third := r.trigger("f", cargo{Text: "2"}), r.trigger("f", cargo{Text: "3"})
			r.completed(first)
			fourth := r.trigger("f", cargo{Text: "4"}) // a place is free at this moment, perhaps
			for _, id := range []segno.RunID{second, third, fourth} {
				r.completed(id)
			}
			order, _ := c.said()
			expect(t, "order", order, strings.TrimSpace(strings.Repeat("1 2 3 4 ", round+1)))
			synctest.Wait()
		}
	})
}

func TestAllowZeroSetsNoLimitOfItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c crowd
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: c.work(time.Second), Overlap: segno.Allow(0)})
		begin := time.Now()
		var ids []segno.RunID
		for range 100 {
			ids = append(ids, r.trigger("f", cargo{}))
		}
		for _, id := range ids {
			r.completed(id)
		}
		_, most := c.said()
		expect(t, "most at a time", most, 100)
		expect(t, "took", time.Since(begin), time.Second)
	})
}

func TestMaxConcurrentBoundsAllFlowsTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c crowd
		w := route{Initial: legA, Steps: legs{
			legA: {Do: func(ctx context.Context, d *cargo) (leg, error) {
				c.enter("a")
				defer c.leave()
				time.Sleep(time.Second)
				return legB, nil
			}},
			legB: {Do: segno.Sleep[cargo](10*time.Second, legC)}, // holds nothing
			legC: {Do: func(ctx context.Context, d *cargo) (leg, error) { // woken all at once
				c.enter("c")
				defer c.leave()
				time.Sleep(time.Second)
				return "", errTest
			}},
			done: {Final: true},
		}}
		a := w.Steps[legA]
		a.Undo = func(context.Context, cargo) error { // an undo executes, too
			c.enter("undo")
			defer c.leave()
			time.Sleep(time.Second)
			return nil
		}
		w.Steps[legA] = a
		b := newBed(t).with(segno.Options{MaxConcurrent: 4})
		var flows []segno.Flow
		for i := range 3 {
			flows = append(flows, segno.Flow{ID: fmt.Sprint(i), Workflow: w, Overlap: segno.Allow(0), Schedule: segno.Every(24 * time.Hour)})
		}
		r := b.start(flows...)
		var ids []segno.RunID
		for i := range 9 {
			ids = append(ids, r.trigger(fmt.Sprint(i%3), cargo{}))
		}
		time.Sleep(20 * time.Second)
		r = b.restart(flows...)
		for _, id := range ids {
			r.ended(id, segno.RunFailed)
		}
		for i := range 3 {
			r.ended(r.runs(fmt.Sprint(i))[0].ID, segno.RunFailed)
		}
		order, most := c.said()
		expect(t, "most at a time", most, 4)
		expect(t, "steps a", strings.Count(order, "a"), 12)
	})
}

func TestASlotBeyondAllowWaitsAsPending(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c crowd
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: c.work(2500 * time.Millisecond), Overlap: segno.Allow(2), Schedule: segno.Every(time.Second)})
		time.Sleep(4500 * time.Millisecond)
		synctest.Wait()
		expect(t, "ledger", r.slots("f"), "fired 1, fired 1, fired 1, fired 1, fired 1")
		_, most := c.said()
		expect(t, "most at a time", most, 2)
		pending := 0
		for _, run := range r.runs("f") {
			if run.Status == segno.RunPending {
				pending++
			}
		}
		expect(t, "pending", pending, 1)
	})
}

// stuck makes the open runs of a flow stuck by raising its version.
func stuck(b *bed, f segno.Flow) (*live, segno.Flow) {
	b.t.Helper()
	w := f.Workflow.(route)
	b.kill()
	w.Version++
	f.Workflow = w
	r := b.start(f)
	synctest.Wait()
	return r, f
}

func TestAStuckRunDoesNotBlockItsFlowUnlessItIsSerial(t *testing.T) {
	for _, serial := range []bool{false, true} {
		t.Run(fmt.Sprint(serial), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				block := true
				f := segno.Flow{ID: "f", Serial: serial, Schedule: segno.Every(time.Hour), Workflow: one(func(ctx context.Context, c *cargo) (leg, error) {
					if block {
						return hold(ctx, c)
					}
					return done, nil
				})}
				b.start(f)
				synctest.Wait()
				r, _ := stuck(b, f)
				block = false
				info := r.status("f")
				expect(t, "Stuck", info.Stuck, 1)
				expect(t, "Open", info.Open, 0)
				_, err := r.Trigger(context.Background(), "f", segno.Trigger{})
				if serial {
					expectError(t, "Trigger", err, segno.ErrRunning)
				} else if err != nil {
					t.Errorf("Trigger: got error %v, want none", err)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				want := "fired 1, fired 1"
				if serial {
					want = "fired 1, skipped 1 overlap"
				}
				expect(t, "ledger", r.slots("f"), want)
			})
		})
	}
}
