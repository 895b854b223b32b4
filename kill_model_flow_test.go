//go:build unix

package segno_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/segnodev/segno"
)

type killRoute = segno.Workflow[killState, killData]

// A killModel is a workflow that shows one processing model. Every unit of it
// has a name of its own, whatever life it runs in.
type killModel struct {
	flow     func(c *killChild) killRoute
	inFlight int                   // how many units may be in work at the same time
	naps     []killState           // states that wait for an instant, fixed at the first wait
	child    bool                  // the flow calls another one
	signals  int                   // that the run takes
	warm     func(killRoute) error // what a first life does, and then ends
}

var killModels = map[string]killModel{
	"poll":    {flow: killPollFlow, inFlight: 1},
	"timer":   {flow: killTimerFlow, inFlight: 1, naps: []killState{"timer", "sleep"}},
	"batch":   {flow: killBatchFlow, inFlight: 2},
	"stepped": {flow: killSteppedFlow, inFlight: 1},
	"stream":  {flow: killStreamFlow, inFlight: killWindow + 1}, // the items of a window, and the window
	"split":   {flow: killSplitFlow, inFlight: 2},
	"await":   {flow: killAwaitFlow, inFlight: 1, naps: []killState{"deaf"}, signals: 3},
	"call":    {flow: killCallFlow, inFlight: 1, child: true},
	"breaker": {flow: killBreakerFlow, inFlight: 1},
	"limiter": {flow: killLimiterFlow, inFlight: 1, warm: killUseQuota},
}

// killModelLife brings the model's one run to its end.
func killModelLife(c *killChild) {
	model, ctx := killModels[c.Model], context.Background()
	opts := c.options()
	opts.ParkAfter = 10 * time.Millisecond
	opts.Schema = func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS units (unit TEXT NOT NULL)")
		return err
	}
	c.arm()
	s := segno.New(c.Path, opts)
	flow := model.flow(c)
	c.check(s.Manual("flow", flow))
	if model.child {
		c.check(s.Manual("child", c.killChildFlow()))
	}
	r := c.start(s)
	if model.warm != nil && c.Life == 1 {
		c.check(errors.Join(model.warm(flow), r.Stop(ctx)))
		return
	}
	id, err := r.Trigger(ctx, "flow", segno.Trigger{Key: "the one"})
	c.check(err)
	c.say(killEvent{What: "ack", Run: id})
	for n := c.Sent + 1; n <= model.signals; n++ {
		c.check(r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", ID: fmt.Sprint(n), Payload: n}))
		c.say(killEvent{What: "sent", Run: id})
	}
	_, err = r.WaitRun(ctx, id)
	c.check(err)
	c.check(r.Stop(ctx))
	c.say(killEvent{What: "commits", Visit: c.commitsMade()})
}

// begin reports that a unit begins.
func (c *killChild) begin(ctx context.Context, unit string) {
	in := segno.InfoFrom(ctx)
	c.say(killEvent{What: "unit", Run: in.Run, Visit: in.Visit, State: in.State, Text: unit})
}

// aim reports that behind the nth commit from here, or right here, is a good
// place to die. A life that is to die there does.
func (c *killChild) aim(n int) {
	c.say(killEvent{What: "aim"})
	c.mu.Lock()
	aimed := c.Mode == killAim
	if aimed {
		c.Mode, c.At = "after", c.made+n
	}
	c.mu.Unlock()
	if aimed && n == 0 {
		c.die()
	}
}

const killAim = "at its aim, not"

// book joins a row of the unit to the commit that settles it.
func (c *killChild) book(ctx context.Context, unit string) error {
	return segno.OnCommit(ctx, func(tx segno.Tx) error {
		_, err := tx.Exec("INSERT INTO units (unit) VALUES (?)", unit)
		return err
	})
}

// unit is all of a unit: it begins, works for a moment, and is booked.
func (c *killChild) unit(ctx context.Context, format string, args ...any) error {
	unit := fmt.Sprintf(format, args...)
	c.begin(ctx, unit)
	time.Sleep(time.Millisecond) // the end of its context does not end it
	return c.book(ctx, unit)
}

// last is a step that ends the flow.
func (c *killChild) last(ctx context.Context, d *killData) (killState, error) {
	d.Trail = append(d.Trail, "last")
	return "done", c.unit(ctx, "last")
}

func killPollFlow(c *killChild) killRoute {
	return killRoute{Initial: "poll", Steps: killSteps{
		"poll": {Do: segno.Poll(func(ctx context.Context, d *killData) (killState, time.Duration, error) {
			n := len(d.Trail) + 1
			d.Trail = append(d.Trail, fmt.Sprint(n))
			again := []time.Duration{0, 2 * time.Millisecond, 20 * time.Millisecond}[n%3] // in memory, and parked
			if n == 6 {
				again = 0
			} else {
				again = max(again, time.Millisecond)
			}
			return "last", again, c.unit(ctx, "poll %d", n)
		})},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

const killNap = 300 * time.Millisecond // of what waits for an instant

func killTimerFlow(c *killChild) killRoute {
	return killRoute{Initial: "timer", Steps: killSteps{
		"timer": {Do: segno.Timer(func(ctx context.Context, _ *killData) (time.Time, error) {
			c.aim(1)
			return time.Now().Add(killNap), c.unit(ctx, "until")
		}, func(ctx context.Context, d *killData) (killState, error) {
			d.Trail = append(d.Trail, "then")
			return "sleep", c.unit(ctx, "then")
		})},
		"sleep": {Do: segno.Sleep[killData](killNap, killState("last"))},
		"last":  {Do: c.last}, "done": {Final: true},
	}}
}

func killBatchFlow(c *killChild) killRoute {
	return killRoute{Initial: "batch", Steps: killSteps{
		"batch": {Do: segno.Batch(func(ctx context.Context, _ killData) ([]int, error) {
			return []int{1, 2, 3, 4, 5, 6}, c.unit(ctx, "load")
		}, func(ctx context.Context, i int) (int, error) {
			return 10 * i, c.unit(ctx, "item %d", i)
		}, func(ctx context.Context, d *killData, all []segno.Settled[int]) (killState, error) {
			for _, s := range all {
				d.Trail = append(d.Trail, fmt.Sprint(s.Value, s.Err))
			}
			return "last", c.unit(ctx, "finish")
		}, segno.BatchOptions{Concurrency: 2})},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

func killSteppedFlow(c *killChild) killRoute {
	return killRoute{Initial: "stepped", Steps: killSteps{
		"stepped": {Do: segno.Stepped(func(ctx context.Context, d *killData, at *int) (killState, bool, error) {
			*at++
			d.Trail = append(d.Trail, fmt.Sprint(*at))
			return "last", *at < 6, c.unit(ctx, "step %d", *at)
		})},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

const killWindow = 3 // items of a stream's window

func killStreamFlow(c *killChild) killRoute {
	return killRoute{Initial: "stream", Steps: killSteps{
		"stream": {Do: segno.Stream(segno.Source[killState, killData, int, int, int]{
			Open: func(_ context.Context, _ killData, from *int) (iter.Seq2[int, error], error) {
				i := 0
				if from != nil {
					i = *from
				}
				return func(yield func(int, error) bool) {
					for i++; i <= 8 && yield(i, nil); i++ {
					}
				}, nil
			},
			Count: killWindow,
			Item: func(ctx context.Context, i int) (int, int, error) {
				c.begin(ctx, fmt.Sprint("item ", i))
				return i, i, nil
			},
			Flush: func(ctx context.Context, d *killData, window []int) (killState, bool, error) {
				d.Trail = append(d.Trail, fmt.Sprint(window))
				err := c.unit(ctx, "window %v", window)
				for _, i := range window {
					err = errors.Join(err, c.book(ctx, fmt.Sprint("item ", i)))
				}
				return "", false, err
			},
			Close: func(ctx context.Context, _ *killData) (killState, error) { return "last", c.unit(ctx, "close") },
		})},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

func killSplitFlow(c *killChild) killRoute {
	branch := func(i int) func(context.Context, killData) (string, error) {
		return func(ctx context.Context, _ killData) (string, error) {
			return fmt.Sprint("from ", i), c.unit(ctx, "branch %d", i)
		}
	}
	return killRoute{Initial: "split", Steps: killSteps{
		"split": {Do: segno.Split(segno.Join{Bulkhead: 2, Timeout: time.Minute}, func(ctx context.Context, d *killData, all []segno.Settled[string]) (killState, error) {
			for _, s := range all {
				d.Trail = append(d.Trail, s.Value)
			}
			return "last", c.unit(ctx, "merge")
		}, branch(0), branch(1), branch(2), branch(3), branch(4))},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

func killAwaitFlow(c *killChild) killRoute {
	return killRoute{Initial: "await", Steps: killSteps{
		"await": {Timeout: time.Hour, Do: segno.Await("go", func(ctx context.Context, d *killData, n int) (killState, error) {
			d.Trail = append(d.Trail, fmt.Sprint(n))
			next := killState("await")
			if len(d.Trail) == 3 {
				next = "deaf"
				c.aim(2)
			}
			return next, c.unit(ctx, "take %d", len(d.Trail))
		})},
		"deaf": {Timeout: killNap, Do: segno.Await("never", func(context.Context, *killData, int) (killState, error) {
			return "", errors.New("there was a signal")
		}, segno.AwaitOptions[killState, killData]{OnTimeout: func(ctx context.Context, d *killData) (killState, error) {
			d.Trail = append(d.Trail, "late")
			return "last", c.unit(ctx, "late")
		}})},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

// killChildFlow is what the flow of Call calls.
func (c *killChild) killChildFlow() killRoute {
	return killRoute{Initial: "work", Steps: killSteps{
		"work": {Do: func(ctx context.Context, d *killData) (killState, error) {
			d.Trail = append(d.Trail, "work "+d.Name)
			return "rest", c.unit(ctx, "child %s", d.Name)
		}},
		"rest": {Do: segno.Sleep[killData](15*time.Millisecond, killState("done"))}, "done": {Final: true},
	}}
}

func killCallFlow(c *killChild) killRoute {
	return killRoute{Initial: "call", Steps: killSteps{
		"call": {Do: segno.Call("child", c.killChildFlow(), func(d killData) killData {
			return killData{Name: fmt.Sprint(len(d.Trail))}
		}, func(ctx context.Context, d *killData, run segno.Run[killState, killData]) (killState, error) {
			next, n := killState("call"), len(d.Trail)
			if d.Trail = append(d.Trail, run.Data.Trail...); len(d.Trail) == 3 {
				next = "last"
			}
			return next, c.unit(ctx, "then %d", n)
		})},
		"last": {Do: c.last}, "done": {Final: true},
	}}
}

// killBreakerFlow makes four calls by way of a breaker, of which the first two
// fail and open it. The breaker of the last step is where Start finds it.
func killBreakerFlow(c *killChild) killRoute {
	bank := &segno.Breaker{Name: "bank", Failures: 2, Reset: 2 * killNap}
	call := func(ctx context.Context, n int) error {
		return bank.Do(ctx, func(ctx context.Context) error {
			if err := c.unit(ctx, "call %d", n); err != nil || n > 2 {
				return err
			}
			return fmt.Errorf("call %d: no answer", n)
		})
	}
	return killRoute{Initial: "ask", Steps: killSteps{
		"ask": {Do: func(ctx context.Context, d *killData) (killState, error) {
			n := len(d.Trail) + 1
			err := call(ctx, n)
			var open *segno.CircuitOpen
			switch {
			case errors.As(err, &open):
				c.aim(0) // then nothing but the breaker keeps the next call from being made
				return "", segno.SnoozeUntil(open.Until)
			case err == nil && n == 4:
				d.Trail = append(d.Trail, "through")
				return "last", nil
			}
			d.Trail = append(d.Trail, fmt.Sprint(err))
			return "", segno.Snooze(time.Millisecond)
		}},
		"last": {Do: c.last, Breaker: bank}, "done": {Final: true},
	}}
}

// killLimiterFlow makes five steps of which one may begin every 30 ms, and a
// hundred an hour.
func killLimiterFlow(c *killChild) killRoute {
	limits := segno.Tiers{
		{Name: "often", Limiter: &segno.Bucket{Limit: 1, Per: 30 * time.Millisecond}},
		{Name: "quota", Limiter: &segno.Window{Name: "quota", Limit: 100, Per: time.Hour}},
	}
	return killRoute{Initial: "work", Steps: killSteps{
		"work": {Limiter: limits, Do: func(ctx context.Context, d *killData) (killState, error) {
			n := len(d.Trail) + 1
			d.Trail = append(d.Trail, fmt.Sprint(n))
			if n == 4 {
				return "last", c.unit(ctx, "work %d", n)
			}
			return "work", c.unit(ctx, "work %d", n)
		}},
		"last": {Limiter: limits, Do: c.last}, "done": {Final: true},
	}}
}

const killUsed = 10 // of the quota, by the first life

// killUseQuota uses more of the quota than the flow will, so that it shows if a
// death forgets it.
func killUseQuota(flow killRoute) error {
	return flow.Steps["work"].Limiter.(segno.Tiers).Only("quota").TryTake(killUsed)
}
