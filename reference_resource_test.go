package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceResource are the rows of the tasks' group Q: resources, and what
// steps keep.
func referenceResource() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"Q01_res_order": inRow(func(t *testing.T, b *bed) {
			var said tally
			b.opts.Resources = []segno.Resource{resource("a", &said), resource("b", &said), resource("c", &said)}
			b.start(flowOf("f", one(to(done))))
			expect(t, "setup", said.take(), "+a +b +c")
			b.stop()
			expect(t, "teardown", said.String(), "-c(value of c) -b(value of b) -a(value of a)")
		}),
		"Q02_res_partial": inRow(func(t *testing.T, b *bed) {
			var said tally
			bad := resource("c", &said)
			bad.Setup = func(context.Context) (any, error) { return nil, errTest }
			b.opts.Resources = []segno.Resource{resource("a", &said), resource("b", &said), bad, resource("d", &said)}
			_, err := b.tryStart(context.Background(), flowOf("f", one(to(done))))
			expectError(t, "Start", err, errTest)
			var e *segno.RunError
			expect(t, "it is no error of a run", errors.As(err, &e), false)
			expect(t, "said", said.String(), "+a +b -b(value of b) -a(value of a)")
			b.opts.Resources = nil
			b.start(flowOf("f", one(to(done)))) // the file is free again
		}),
		"Q03_res_teardown_errors": inRow(func(t *testing.T, b *bed) { // Stop reports them
			var said tally
			for _, key := range []string{"a", "b", "c"} {
				b.opts.Resources = append(b.opts.Resources, segno.Resource{
					Key:   key,
					Setup: func(context.Context) (any, error) { return nil, nil },
					Teardown: func(context.Context, any) error {
						said.add("-%s", key)
						return fmt.Errorf("%s stays: %w", key, errTest)
					},
				})
			}
			f := flowOf("f", one(to(done)))
			r := b.start(f)
			id := r.trigger("f", cargo{})
			r.completed(id)
			err := r.Stop(context.Background())
			b.run = nil
			expectError(t, "Stop", err, errTest)
			expect(t, "the text has them all", contains(fmt.Sprint(err), "a stays", "b stays", "c stays"), true)
			expect(t, "said", said.String(), "-c -b -a")
			b.opts.Resources = nil
			b.start(f).completed(id)
		}),
		"Q04_res_errors": inRow(func(t *testing.T, b *bed) {
			var said tally
			b.opts.Resources = []segno.Resource{resource("a", &said), resource("a", &said)}
			_, twice := b.tryStart(context.Background())
			b.opts.Resources = b.opts.Resources[:1]
			var missing, other error
			r := b.start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
				_, missing = segno.ResourceFrom[string](ctx, "x")
				_, other = segno.ResourceFrom[int](ctx, "a")
				return done, nil
			})))
			r.completed(r.trigger("f", cargo{}))
			for what, err := range map[string]error{"twice": twice, "missing": missing, "another type": other} {
				kinds := fmt.Sprint(errors.Is(err, segno.ErrExists), errors.Is(err, segno.ErrNotFound), errors.Is(err, segno.ErrConfig))
				want := map[string]string{"twice": "true false false", "missing": "false true true", "another type": "false false true"}[what]
				expect(t, what+": ErrExists, ErrNotFound, ErrConfig", kinds, want)
			}
			expect(t, "the text has both types", contains(fmt.Sprint(other), "string", "int"), true)
		}),
		"Q05_res_health": inRow(func(t *testing.T, b *bed) {
			setup := func(context.Context) (any, error) { return "v", nil }
			for key, probe := range map[string]func(context.Context, any) segno.Health{
				"quiet": nil,
				"well":  func(context.Context, any) segno.Health { return segno.Healthy },
				"slow":  func(context.Context, any) segno.Health { return segno.Degraded },
				"hangs": func(ctx context.Context, _ any) segno.Health { <-ctx.Done(); return segno.Healthy },
				"dies":  func(context.Context, any) segno.Health { panic("no") },
			} {
				b.opts.Resources = append(b.opts.Resources, segno.Resource{Key: key, Setup: setup, Health: probe, Timeout: time.Second})
			}
			r := b.start(flowOf("f", one(to(done))))
			report := fmt.Sprint(r.ResourceHealth(context.Background()))
			expect(t, "report", report, "map[dies:unhealthy hangs:unhealthy quiet:healthy slow:degraded well:healthy]")
			expect(t, "worst", r.Health(context.Background()), segno.Unhealthy)
			synctest.Wait()
			b.stop()
			report = fmt.Sprint(r.ResourceHealth(context.Background()))
			expect(t, "report after Stop", report, "map[dies:unhealthy hangs:unhealthy quiet:unhealthy slow:unhealthy well:unhealthy]")
			b.opts.Resources = nil
			r = b.start(flowOf("f", one(to(done))))
			expect(t, "report without resources", fmt.Sprint(r.ResourceHealth(context.Background()), r.Health(context.Background())), "map[] healthy")
		}),
		"Q06_res_resume_errors": inRow(func(t *testing.T, b *bed) {
			var said tally
			id := interrupted(b, one(hold))
			b.opts.Resources = []segno.Resource{resource("a", &said)}
			version := one(to(done))
			version.Version = 2
			for name, w := range map[string]route{"version": version, "label": line(new(tally), to(legC), to(done))} {
				if name == "label" {
					delete(w.Steps, legA)
					w.Initial = legB
				}
				_, err := b.start(flowOf("f", w)).WaitRun(context.Background(), id)
				expectError(t, name, err, segno.ErrStuck)
				b.stop()
				expect(t, name, said.take(), "+a -a(value of a)")
			}
		}),
		"Q07_res_cancel_teardown": inRow(func(t *testing.T, b *bed) {
			var said tally
			b.opts.Resources = []segno.Resource{resource("a", &said)}
			r := b.start(flowOf("f", one(hold)))
			id := r.trigger("f", cargo{})
			synctest.Wait()
			expectError(t, "CancelRun", r.CancelRun(context.Background(), id), nil)
			r.ended(id, segno.RunCancelled)
			expect(t, "while the scheduler runs", said.take(), "+a")
			b.stop()
			expect(t, "teardown", said.String(), "-a(value of a)")
		}),
		"Q08_res_overlap": inRow(func(t *testing.T, b *bed) {
			var said tally
			b.opts.Resources = []segno.Resource{resource("a", &said)}
			w := one(func(ctx context.Context, c *cargo) (leg, error) {
				time.Sleep(time.Duration(c.N) * time.Second)
				v, err := segno.ResourceFrom[string](ctx, "a")
				said.add("%d:%s", c.N, strings.ReplaceAll(v, " ", "-"))
				return done, err
			})
			r := b.start(many("f", w), many("g", w))
			r.trigger("f", cargo{N: 1})
			r.trigger("f", cargo{N: 3})
			r.trigger("g", cargo{N: 2})
			synctest.Wait()
			b.stop()
			expect(t, "said", said.String(), "+a 1:value-of-a 2:value-of-a 3:value-of-a -a(value of a)")
		}),
		"Q09_store_types": keeps(func(ctx context.Context, t *testing.T) error { // what steps keep are memos
			_, found, err := segno.LoadMemo[int](ctx, "m")
			expect(t, "absent", fmt.Sprint(found, err), "false <nil>")
			expectError(t, "SaveMemo", segno.SaveMemo(ctx, "m", "text"), nil)
			_, _, err = segno.LoadMemo[int](ctx, "m")
			expect(t, "another type is an error that names the memo", strings.Contains(fmt.Sprint(err), `memo "m"`), true)
			expectError(t, "SaveMemo", segno.SaveMemo(ctx, "m", 7), nil)
			n, found, err := segno.LoadMemo[int](ctx, "m")
			expect(t, "the latest type wins", fmt.Sprint(n, found, err), "7 true <nil>")
			return nil
		}),
		"Q10_store_append": keeps(func(ctx context.Context, t *testing.T) error { // to append is to load, append and save
			push := func(key string, v int) error {
				list, _, err := segno.LoadMemo[[]int](ctx, key)
				if err != nil {
					return err
				}
				return segno.SaveMemo(ctx, key, append(list, v))
			}
			expectError(t, "to an absent one", push("list", 1), nil)
			expectError(t, "to a list", push("list", 2), nil)
			list, _, err := segno.LoadMemo[[]int](ctx, "list")
			expect(t, "list", fmt.Sprint(list, err), "[1 2] <nil>")
			expectError(t, "SaveMemo", segno.SaveMemo(ctx, "one", 7), nil)
			expect(t, "to a scalar is an error", push("one", 8) != nil, true)
			n, _, err := segno.LoadMemo[int](ctx, "one")
			expect(t, "the scalar", fmt.Sprint(n, err), "7 <nil>")
			return nil
		}),
		"Q11_store_concurrency": inRow(func(t *testing.T, b *bed) {
			b.with(segno.Options{Schema: toldSchema})
			r := b.start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
				var wg sync.WaitGroup
				errs := make([]error, 5)
				for i := range errs {
					wg.Go(func() {
						for range 10 {
							errs[i] = errors.Join(errs[i], tell(ctx, "item"))
						}
					})
				}
				wg.Wait()
				return done, errors.Join(errs...)
			})))
			r.completed(r.trigger("f", cargo{}))
			expect(t, "items", strings.Count(r.told(), "item"), 50)
		}),
		"Q12_store_durable": inRow(func(t *testing.T, b *bed) {
			var said tally
			f := flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
				v, found, err := segno.LoadMemo[string](ctx, "m")
				_, _, other := segno.LoadMemo[int](ctx, "m")
				said.add("%s %v %v %v", v, found, err, other != nil)
				if found {
					return done, nil
				}
				return "", errors.Join(segno.SaveMemo(ctx, "m", "kept"), (func() error { _, err := hold(ctx, c); return err })())
			}))
			id := b.start(f).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			b.start(f).completed(id)
			expect(t, "loaded", said.String(), " false <nil> false kept true <nil> true")
		}),
	}
}

// keeps makes a row of one step's use of its memos.
func keeps(step func(ctx context.Context, t *testing.T) error) func(*testing.T) {
	return inRow(func(t *testing.T, b *bed) {
		r := b.start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) { return done, step(ctx, t) })))
		r.completed(r.trigger("f", cargo{}))
	})
}
