package segno_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// resource is one that notes its setup and its teardown.
func resource(key string, said *tally) segno.Resource {
	return segno.Resource{
		Key:      key,
		Setup:    func(context.Context) (any, error) { said.add("+%s", key); return "value of " + key, nil },
		Teardown: func(_ context.Context, v any) error { said.add("-%s(%v)", key, v); return nil },
	}
}

func TestResourcesAreSetUpInOrderAndTornDownInReverse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("a", &said), resource("b", &said), resource("c", &said)}})
		r := b.start(flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
			v, err := segno.ResourceFrom[string](ctx, "b")
			said.add("step")
			c.Text = v
			return done, err
		})))
		expect(t, "data", string(r.completed(r.trigger("f", cargo{})).Data), `{"text":"value of b"}`)
		b.stop()
		expect(t, "said", said.String(), "+a +b +c step -c(value of c) -b(value of b) -a(value of a)")
	})
}

func TestAResourceOfAnotherKeyOrTypeIsErrConfig(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("a", &said)}})
		r := b.start(flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
			_, key := segno.ResourceFrom[string](ctx, "x")
			_, typ := segno.ResourceFrom[int](ctx, "a")
			if !errors.Is(key, segno.ErrConfig) || !errors.Is(typ, segno.ErrConfig) {
				return "", fmt.Errorf("got %v and %v", key, typ)
			}
			return done, nil
		})))
		r.completed(r.trigger("f", cargo{}))
	})
}

func TestAResourceIsThereInAnUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said, undone tally
		b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("a", &said)}})
		w := change(saga(1, &undone, fail), "s1", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, _ cargo) error {
				v, err := segno.ResourceFrom[string](ctx, "a")
				undone.add("%s", v)
				return err
			}
		})
		r := b.start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "said", undone.String(), "value of a")
	})
}

func TestAFailedSetupTearsDownWhatIsUp(t *testing.T) {
	for name, setup := range map[string]func(context.Context) (any, error){
		"error":   func(context.Context) (any, error) { return nil, errTest },
		"panic":   func(context.Context) (any, error) { panic(errTest) },
		"goexit":  func(context.Context) (any, error) { runtime.Goexit(); return nil, nil },
		"timeout": func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var said tally
				f := segno.Flow{ID: "f", Schedule: segno.Every(time.Second), Workflow: one(func(context.Context, *cargo) (leg, error) {
					said.add("step")
					return done, nil
				})}
				b.opts.Resources = []segno.Resource{resource("a", &said), resource("b", &said), {Key: "bad", Setup: setup, Timeout: time.Minute}, resource("d", &said)}
				_, err := b.tryStart(context.Background(), f)
				if err == nil || !strings.Contains(err.Error(), `resource "bad"`) {
					t.Fatalf("Start: got error %v, want that of the resource", err)
				}
				switch name {
				case "error":
					expectError(t, "Start", err, errTest)
				case "panic", "goexit":
					expectError(t, "Start", err, segno.ErrPanic)
				case "timeout":
					expectError(t, "Start", err, context.DeadlineExceeded)
				}
				expect(t, "said", said.take(), "+a +b -b(value of b) -a(value of a)")
				b.opts.Resources = nil
				b.start(f) // the lock is free again
				synctest.Wait()
				expect(t, "said", said.String(), "step")
			})
		})
	}
}

func TestAStartWhoseContextEndsInASetupTearsDownProperly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		ctx, cancel := context.WithCancel(context.Background())
		b.opts.Resources = []segno.Resource{
			{
				Key:   "a",
				Setup: func(context.Context) (any, error) { return 1, nil },
				Teardown: func(ctx context.Context, _ any) error {
					time.Sleep(time.Second)
					said.add("down %v", ctx.Err())
					return nil
				},
			},
			{Key: "b", Setup: func(ctx context.Context) (any, error) { cancel(); <-ctx.Done(); return nil, ctx.Err() }},
		}
		_, err := b.tryStart(ctx, flowOf("f", one(to(done))))
		expectError(t, "Start", err, context.Canceled)
		expect(t, "when Start returns", said.String(), "down <nil>")
		b.opts.Resources = nil
		b.start(flowOf("f", one(to(done))))
	})
}

func TestAFailedTeardownIsReportedAndTheOthersGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		bad := resource("bad", &said)
		bad.Teardown = func(context.Context, any) error { return errTest }
		slow := resource("slow", &said)
		slow.Timeout = time.Minute
		slow.Teardown = func(ctx context.Context, _ any) error { <-ctx.Done(); return ctx.Err() }
		b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("a", &said), bad, slow, resource("d", &said)}})
		r := b.start(flowOf("f", one(to(done))))
		err := r.Stop(context.Background())
		b.run = nil
		expectError(t, "Stop", err, errTest)
		expectError(t, "Stop", err, context.DeadlineExceeded)
		expect(t, "the text names both", contains(err.Error(), `"bad"`, `"slow"`), true)
		expect(t, "said", said.String(), "+a +bad +slow +d -d(value of d) -a(value of a)")
		b.opts.Resources = nil
		b.start(flowOf("f", one(to(done))))
	})
}

func TestBadResourcesAreRefusedByStart(t *testing.T) {
	setup := func(context.Context) (any, error) { return nil, nil }
	for name, c := range map[string]struct {
		list []segno.Resource
		want error
	}{
		"no key":    {[]segno.Resource{{Setup: setup}}, segno.ErrConfig},
		"no setup":  {[]segno.Resource{{Key: "a"}}, segno.ErrConfig},
		"a key two": {[]segno.Resource{{Key: "a", Setup: setup}, {Key: "a", Setup: setup}}, segno.ErrExists},
	} {
		_, err := segno.New("never-opened.db", segno.Options{Resources: c.list}).Start(context.Background())
		expectError(t, name, err, c.want)
	}
}

func TestResourcesAreTornDownAfterTheLastStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("a", &said)}})
		r := b.start(flowOf("f", one(func(context.Context, *cargo) (leg, error) {
			time.Sleep(10 * time.Second)
			said.add("step")
			return done, nil
		})))
		r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		expect(t, "said", said.String(), "+a step -a(value of a)")
	})
}

func TestHealthIsTheWorstOfAll(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		setup := func(context.Context) (any, error) { return "v", nil }
		var second func(context.Context, any) segno.Health
		b := newBed(t).with(segno.Options{Resources: []segno.Resource{
			{Key: "quiet", Setup: setup},
			{Key: "well", Setup: setup, Health: func(context.Context, any) segno.Health { return segno.Healthy }},
			{Key: "other", Setup: setup, Timeout: time.Second, Health: func(ctx context.Context, v any) segno.Health {
				if v != "v" {
					return segno.Unhealthy
				}
				return second(ctx, v)
			}},
		}})
		r := b.start(flowOf("f", one(to(done))))
		for name, c := range map[string]struct {
			probe func(context.Context, any) segno.Health
			want  segno.Health
		}{
			"healthy":   {func(context.Context, any) segno.Health { return segno.Healthy }, segno.Healthy},
			"degraded":  {func(context.Context, any) segno.Health { return segno.Degraded }, segno.Degraded},
			"unhealthy": {func(context.Context, any) segno.Health { return segno.Unhealthy }, segno.Unhealthy},
			"a panic":   {func(context.Context, any) segno.Health { panic("no") }, segno.Unhealthy},
			"a hang":    {func(ctx context.Context, _ any) segno.Health { <-ctx.Done(); return segno.Healthy }, segno.Unhealthy},
		} {
			second = c.probe
			expect(t, name, r.Health(ctx), c.want)
			synctest.Wait()
		}
		expect(t, "words", fmt.Sprint(segno.Healthy, segno.Degraded, segno.Unhealthy), "healthy degraded unhealthy")
	})
}
