package segno_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceSaga are the rows of the engine's group G: rollback.
func referenceSaga() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"G01_reverse_order": inRow(func(t *testing.T, b *bed) {
			var undone tally
			r := b.start(flowOf("f", saga(3, &undone, fail)))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", undone.String(), "s3:3 s2:2 s1:1")
			expect(t, "State and Err", e.State+" "+e.Err.Error(), "s4 test: went wrong")
		}),
		"G02_prefix_property": inRow(func(t *testing.T, b *bed) {
			const n = 5
			var undone tally
			var flows []segno.Flow
			for k := 1; k <= n; k++ {
				w := change(saga(n, &undone, to(done)), leg(fmt.Sprintf("s%d", k)), func(s *segno.Step[leg, cargo]) { s.Do = fail })
				flows = append(flows, flowOf(fmt.Sprint(k), w))
			}
			r := b.start(flows...)
			want := ""
			for k := 1; k <= n; k++ {
				r.ended(r.trigger(fmt.Sprint(k), cargo{}), segno.RunFailed)
				expect(t, fmt.Sprintf("undone when s%d fails", k), undone.take(), want)
				want = strings.TrimSpace(fmt.Sprintf("s%d:%d %s", k, k, want))
			}
		}),
		"G03_success_no_comp": inRow(func(t *testing.T, b *bed) {
			var undone tally
			r := b.start(flowOf("f", saga(3, &undone, to(done))))
			id := r.trigger("f", cargo{})
			r.completed(id)
			expect(t, "undone", undone.String(), "")
			expectError(t, "CancelRun", r.CancelRun(context.Background(), id), segno.ErrEnded)
			expectError(t, "UndoRun", r.UndoRun(context.Background(), id), segno.ErrConfig)
			expect(t, "undone when asked to", undone.String(), "")
		}),
		"G04_plain_skipped": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := change(saga(3, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo = nil })
			r := b.start(flowOf("f", w))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", undone.String(), "s3:3 s1:1")
		}),
		"G05_plain_failure_drains": inRow(func(t *testing.T, b *bed) {
			var undone tally
			r := b.start(flowOf("f", saga(1, &undone, fail))) // s2 has no undo
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", undone.String(), "s1:1")
		}),
		"G06_comp_error_continues": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := saga(4, &undone, fail)
			for _, name := range []leg{"s2", "s3"} {
				change(w, name, func(s *segno.Step[leg, cargo]) {
					s.Undo = func(context.Context, cargo) error { return fmt.Errorf("%s refused", name) }
				})
			}
			r := b.start(flowOf("f", w))
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expect(t, "undone", undone.String(), "s4:4 s1:1")
			expect(t, "errors, in the order they came", fmt.Sprint(e.Undo), "[undo of s3: s3 refused undo of s2: s2 refused]")
		}),
		"G07_comp_panic": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := change(saga(3, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) {
				s.Undo = func(context.Context, cargo) error { panic("refund") }
			})
			r := b.start(flowOf("f", w))
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expect(t, "undone", undone.String(), "s3:3 s1:1")
			expectError(t, "the failed undo", e.Undo[0], segno.ErrPanic)
		}),
		"G08_comp_hang": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := change(saga(3, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) {
				s.Timeout = 50 * time.Millisecond
				s.Undo = func(ctx context.Context, _ cargo) error { <-ctx.Done(); return ctx.Err() }
			})
			r := b.start(flowOf("f", w))
			begin := time.Now()
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expect(t, "took", time.Since(begin), 50*time.Millisecond)
			expect(t, "undone", undone.String(), "s3:3 s1:1")
			expectError(t, "the failed undo", e.Undo[0], context.DeadlineExceeded)
		}),
		"G09_comp_not_retried": inRow(func(t *testing.T, b *bed) { // unless UndoRetry says so; Retry does not
			var undone tally
			w := change(saga(2, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) {
				s.Retry = segno.Fixed(5, time.Millisecond)
				s.Undo = func(context.Context, cargo) error { undone.add("s2"); return errTest }
			})
			r := b.start(flowOf("f", w))
			r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expect(t, "undone", undone.String(), "s2 s1:1")
		}),
		"G10_first_error_context": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := change(saga(1, &undone, fail), "s1", func(s *segno.Step[leg, cargo]) {
				s.Undo = func(context.Context, cargo) error { return fmt.Errorf("refused") }
			})
			change(w, "s2", func(s *segno.Step[leg, cargo]) { s.Retry = segno.Fixed(2, time.Millisecond) })
			r := b.start(flowOf("f", w))
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expect(t, "State, Attempt, Path and Err", fmt.Sprint(e.State, e.Attempt, e.Path, e.Err), "s22 [s1 s2] test: went wrong")
			expect(t, "the text", contains(e.Error(), "s2", "attempt 2", "s1 → s2", "went wrong", "undo 1: ", "refused"), true)
		}),
		"G11_orphan": inRow(func(t *testing.T, b *bed) {
			var undone tally
			id := interrupted(b, saga(2, &undone, hold))
			w := change(saga(2, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo = nil })
			r := b.start(flowOf("f", w))
			e := r.ended(id, segno.RunUndoFailed)
			expectError(t, "the failed undo", e.Undo[0], segno.ErrOrphanedUndo)
			expect(t, "undone", undone.String(), "s1:1")
			data, err := queryLines(r.DB(), "SELECT data FROM segno_history WHERE run = ? AND kind = 'undo_failed'", id)
			expect(t, "its data", fmt.Sprint(data, err), `[{"n":2}] <nil>`)
		}),
		"G12_bad_blob": inRow(func(t *testing.T, b *bed) {
			var undone tally
			id := interrupted(b, saga(2, &undone, hold))
			b.exec(`UPDATE _segno_journal SET data = '{"n":"many"}' WHERE undo = 's2'`)
			r := b.start(flowOf("f", saga(2, &undone, fail)))
			e := r.ended(id, segno.RunUndoFailed)
			expect(t, "the failed undo", contains(fmt.Sprint(e.Undo), "undo of s2", "decoded"), true)
			expect(t, "undone", undone.String(), "s1:1")
		}),
		"G13_bounded_drain": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", slowUndos(new(tally), 50*time.Millisecond, fail)))
			begin := time.Now()
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expect(t, "took", time.Since(begin), 50*time.Millisecond)
			expect(t, "failed undos", len(e.Undo), 3)
			for _, undo := range e.Undo {
				expectError(t, "a failed undo", undo, context.DeadlineExceeded)
			}
		}),
		"G14_elapsed_deadline": inRow(func(t *testing.T, b *bed) { // every undo that had no time is reported, and can be repeated with its data
			var undone tally
			r := b.start(flowOf("f", slowUndos(&undone, time.Millisecond, fail)))
			id := r.trigger("f", cargo{})
			expect(t, "failed undos", len(r.ended(id, segno.RunUndoFailed).Undo), 3)
			expect(t, "undos begun", undone.take(), "s3:3")
			r = b.restart(flowOf("f", slowUndos(&undone, time.Hour, fail)))
			expectError(t, "UndoRun", r.UndoRun(context.Background(), id), nil)
			r.ended(id, segno.RunFailed)
			expect(t, "undone", undone.String(), "s3:3 s2:2 s1:1")
		}),
		"G15_bounded_pre_dispatch": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := slowUndos(&undone, 1500*time.Millisecond, nil)
			change(w, "s3", func(s *segno.Step[leg, cargo]) { s.Do = to("mars") })
			delete(w.Steps, "s4")
			r := b.start(flowOf("f", w))
			begin := time.Now()
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expectError(t, "Err", e.Err, segno.ErrUnknownState)
			expect(t, "took", time.Since(begin), 1500*time.Millisecond)
			expect(t, "undone, the last one not in time", undone.String(), "s3:2 s2:2")
		}),
		"G16_deep_stack": inRow(func(t *testing.T, b *bed) {
			var undone tally
			r := b.start(flowOf("f", saga(60, &undone, fail)))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			var want []string
			for i := 60; i > 0; i-- {
				want = append(want, fmt.Sprintf("s%d:%d", i, i))
			}
			expect(t, "undone", undone.String(), strings.Join(want, " "))
		}),
		"G17_concurrent_sagas": inRow(func(t *testing.T, b *bed) {
			ledger := make([]tally, 40)
			w := route{Initial: "s1", Steps: legs{"s4": {Do: to(done)}, done: {Final: true}}}
			for i := 1; i <= 3; i++ {
				w.Steps[leg(fmt.Sprintf("s%d", i))] = segno.Step[leg, cargo]{
					Do: func(_ context.Context, c *cargo) (leg, error) {
						if c.N%4 == i {
							return "", errTest
						}
						ledger[c.N].add("+%d", i)
						return leg(fmt.Sprintf("s%d", i+1)), nil
					},
					Undo: func(_ context.Context, c cargo) error { ledger[c.N].add("-%d", i); return nil },
				}
			}
			r := b.start(many("f", w))
			ids := make([]segno.RunID, len(ledger))
			for n := range ids {
				ids[n] = r.trigger("f", cargo{N: n})
			}
			for n, id := range ids {
				info, _ := r.WaitRun(context.Background(), id)
				expect(t, fmt.Sprintf("run %d failed", n), info.Status == segno.RunFailed, n%4 != 0)
				want := []string{"+1 +2 +3", "", "+1 -1", "+1 +2 -2 -1"}[n%4]
				expect(t, fmt.Sprintf("ledger of run %d", n), ledger[n].String(), want)
			}
		}),
		"G18_resume_rehydrates": inRow(func(t *testing.T, b *bed) {
			var undone tally
			id := interrupted(b, saga(2, &undone, hold))
			b.start(flowOf("f", saga(2, &undone, fail))).ended(id, segno.RunFailed)
			expect(t, "undone, with the data of before the crash", undone.String(), "s2:2 s1:1")
		}),
		"G19_no_double_comp": inRow(func(t *testing.T, b *bed) { referenceCrashBehind(t, b, 1) }),
		"G20_double_crash":   inRow(func(t *testing.T, b *bed) { referenceCrashBehind(t, b, 2) }),
		"G23_unserializable": inRow(func(t *testing.T, b *bed) { // what it left cannot be kept: it is uncertain
			var undone tally
			for i, undoUncertain := range []bool{true, false} {
				r := b.start(flowOf("f", unsavable(&undone, undoUncertain)))
				e := r.ended(r.triggerWith("f", segno.Trigger{Input: weight{1}}), segno.RunFailed)
				expect(t, "the text says why", strings.Contains(e.Error(), "encoding the data"), true)
				expect(t, "undone", undone.take(), []string{"undo:1:true", ""}[i])
				expect(t, "the error names the visit", strings.Contains(e.Error(), "outcome of a, visit 1"), !undoUncertain)
				b.stop()
			}
		}),
		"G24_inline_no_timeout": inRow(func(t *testing.T, b *bed) { // Step.Timeout bounds every undo
			var undone tally
			w := change(saga(1, &undone, nil), "s1", func(s *segno.Step[leg, cargo]) {
				s.Do, s.Timeout = to("mars"), 30*time.Millisecond
				s.Undo = func(ctx context.Context, _ cargo) error {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(80 * time.Millisecond):
						return nil
					}
				}
			})
			delete(w.Steps, "s2")
			r := b.start(flowOf("f", w))
			e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
			expectError(t, "Err", e.Err, segno.ErrUnknownState)
			expectError(t, "the failed undo", e.Undo[0], context.DeadlineExceeded)
		}),
		"G25_inline_fails": inRow(func(t *testing.T, b *bed) { referenceAstray(t, b) }),
		"G26_inline_dirty_keeps_log": inRow(func(t *testing.T, b *bed) {
			id, undone := referenceAstray(t, b)
			r := b.start(flowOf("f", saga(2, undone, fail)))
			expectError(t, "UndoRun", r.UndoRun(context.Background(), id), nil)
			r.ended(id, segno.RunFailed)
			expect(t, "undone by the repetition, with its data", undone.String(), "s2:7")
		}),
		"G27_forward_panic_leak": inRow(func(t *testing.T, b *bed) {
			var undone tally
			r := b.start(flowOf("f", uncertain(&undone, func(context.Context, *cargo) (leg, error) {
				undone.add("charged")
				panic("behind it")
			}, false, 0)))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", undone.String(), "charged s1:1")
			expect(t, "the error names the visit", strings.Contains(e.Error(), "the outcome of s2, visit 2, is unknown, and it was not undone"), true)
		}),
		"G28_forward_timeout": inRow(func(t *testing.T, b *bed) {
			var undone tally
			r := b.start(flowOf("f", uncertain(&undone, hold, false, time.Second)))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expectError(t, "Err", e.Err, context.DeadlineExceeded)
			expect(t, "undone", undone.String(), "s1:1")
		}),
		"G29_replaced_step": inRow(func(t *testing.T, b *bed) {
			var before, after tally
			id := interrupted(b, saga(2, &before, hold))
			b.start(flowOf("f", saga(2, &after, fail))).ended(id, segno.RunFailed)
			expect(t, "undone by the old code, and the new", before.String()+"/"+after.String(), "/s2:2 s1:1")
		}),
		"G30_name_collision": inRow(func(t *testing.T, b *bed) { // two states may share their functions
			var undone tally
			keys := map[string]bool{}
			undo := func(ctx context.Context, c cargo) error {
				in := segno.InfoFrom(ctx)
				undone.add("%s:%d:%d", in.State, in.Visit, c.N)
				keys[in.Key] = true
				return nil
			}
			w := saga(2, nil, fail)
			for _, name := range []leg{"s1", "s2"} {
				change(w, name, func(s *segno.Step[leg, cargo]) { s.Undo = undo })
			}
			r := b.start(flowOf("f", w))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", undone.String(), "s2:2:2 s1:1:1")
			expect(t, "different keys", len(keys), 2)
		}),
		"G31_loop_entries": inRow(func(t *testing.T, b *bed) {
			var undone tally
			w := change(saga(1, &undone, fail), "s1", func(s *segno.Step[leg, cargo]) {
				s.Do = func(_ context.Context, c *cargo) (leg, error) {
					if c.N++; c.N < 3 {
						return "s1", nil
					}
					return "s2", nil
				}
			})
			r := b.start(flowOf("f", w))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", undone.String(), "s1:3 s1:2 s1:1")
		}),
		"G32_completion_append_fails": inRow(func(t *testing.T, b *bed) { // the process ends; the step runs again, and is undone once
			var did, undone tally
			w := change(saga(2, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) {
				s.Do = func(_ context.Context, c *cargo) (leg, error) {
					c.N = 10 * did.add("s2")
					b.dead.Store(did.len() == 1)
					return "s3", nil
				}
			})
			r := b.start(flowOf("f", w))
			id := r.trigger("f", cargo{})
			expectError(t, "Wait", r.Wait(), segno.ErrStoreFailed)
			b.kill()
			b.start(flowOf("f", w)).ended(id, segno.RunFailed)
			expect(t, "done, and undone", did.String()+"/"+undone.String(), "s2 s2/s2:20 s1:1")
		}),
	}
}

// slowUndos is a saga of three steps whose undos take a second.
func slowUndos(undone *tally, budget time.Duration, end do) route {
	w := saga(3, undone, end)
	w.UndoTimeout = budget
	for _, name := range []leg{"s1", "s2", "s3"} {
		change(w, name, func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, c cargo) error {
				undone.add("%s:%d", name, c.N)
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Second):
					return nil
				}
			}
		})
	}
	return w
}

// referenceCrashBehind kills the process right behind the commit that finishes
// s2, and so many times in the step after it.
func referenceCrashBehind(t *testing.T, b *bed, times int) {
	t.Helper()
	var did, undone tally
	alive := false
	w := change(saga(2, &undone, func(ctx context.Context, c *cargo) (leg, error) {
		did.add("s3")
		if alive {
			return "", errTest
		}
		return hold(ctx, c)
	}), "s2", func(s *segno.Step[leg, cargo]) {
		s.Do = func(_ context.Context, c *cargo) (leg, error) { c.N += did.add("s2"); return "s3", nil }
	})
	id := interrupted(b, w)
	for range times - 1 {
		b.start(flowOf("f", w))
		synctest.Wait()
		b.kill()
	}
	alive = true
	b.start(flowOf("f", w)).ended(id, segno.RunFailed)
	expect(t, "done", did.String(), "s2"+strings.Repeat(" s3", times+1))
	expect(t, "undone", undone.String(), "s2:2 s1:1")
}

// referenceAstray runs a saga whose second step goes astray and cannot be
// undone, and stops behind it.
func referenceAstray(t *testing.T, b *bed) (segno.RunID, *tally) {
	t.Helper()
	undone := new(tally)
	var id segno.RunID
	for name, undo := range map[string]func(context.Context, cargo) error{
		"error": func(context.Context, cargo) error { return errTest },
		"panic": func(context.Context, cargo) error { panic("refused") },
	} {
		w := change(saga(2, undone, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Do, s.Undo = func(_ context.Context, c *cargo) (leg, error) { c.N = 7; return "mars", nil }, undo
		})
		r := b.start(flowOf("f", w))
		id = r.trigger("f", cargo{})
		e := r.ended(id, segno.RunUndoFailed)
		expectError(t, "Err", e.Err, segno.ErrUnknownState)
		expect(t, name+": State and failed undos", fmt.Sprint(e.State, len(e.Undo)), "s21")
		expect(t, name+": the others", undone.take(), "s1:1")
		b.stop()
	}
	return id, undone
}

// weight is data that JSON does not take when it is not finite.
type weight struct{ V float64 }

// unsavable is a workflow whose step does its work and leaves what cannot be kept.
func unsavable(undone *tally, undoUncertain bool) segno.Definition {
	return segno.Workflow[leg, weight]{Initial: legA, Steps: segno.Steps[leg, weight]{
		legA: {
			Do: func(_ context.Context, w *weight) (leg, error) { w.V = math.Inf(1); return done, nil },
			Undo: func(ctx context.Context, w weight) error {
				undone.add("undo:%v:%v", w.V, segno.InfoFrom(ctx).Uncertain)
				return nil
			},
			UndoUncertain: undoUncertain, Retry: segno.Fixed(3, time.Millisecond),
		},
		done: {Final: true},
	}}
}
