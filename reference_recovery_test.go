package segno_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceRecovery are the rows of the engine's group R: what is in the file,
// and how a run goes on from it.
func referenceRecovery() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"R01_rows_per_state": inRow(func(t *testing.T, b *bed) {
			var said tally
			r := b.start(flowOf("f", line(&said, to(legC), to(done))))
			id := r.trigger("f", cargo{})
			r.completed(id)
			expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
			for i, e := range r.entries(id) {
				expect(t, fmt.Sprintf("visit of entry %d", i), e.Visit, i+1)
			}
		}),
		"R02_store_without_id": inRow(func(t *testing.T, b *bed) { // a run needs no id of the caller's
			keys := map[string]bool{}
			f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
				keys[segno.InfoFrom(ctx).Key] = true
				return done, nil
			}))
			r := b.start(f)
			first := r.trigger("f", cargo{})
			r.completed(first)
			r = b.restart(f)
			second := r.trigger("f", cargo{})
			r.completed(second)
			expect(t, "ids rise", second > first && first > 0, true)
			expect(t, "different keys", len(keys), 2)
		}),
		"R03_resume_without_store": inRow(func(t *testing.T, b *bed) { // there is no scheduler without a file
			var said tally
			f := flowOf("f", line(&said, to(legC), to(done)))
			good := b.path
			b.path = filepath.Join(b.path, "no folder", "test.db")
			if _, err := b.tryStart(context.Background(), f); err == nil {
				t.Error("Start without a file: got no error, want one")
			}
			b.path = good
			r := b.start(f)
			expect(t, "steps called", said.String(), "")
			r.completed(r.trigger("f", cargo{}))
		}),
		"R04_resume_middle": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			f := flowOf("f", line(&said, unless(&alive, legC), to(done)))
			id := b.start(f).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			said.take()
			alive = true
			r := b.start(f)
			r.completed(id)
			expect(t, "steps called", said.String(), "b c")
			expect(t, "log", r.log(id), "enter a, enter b, crash b, enter c, end done")
		}),
		"R05_resume_exit": inRow(func(t *testing.T, b *bed) {
			var said tally
			f := flowOf("f", line(&said, to(legC), to(done)))
			r := b.start(f)
			id := r.trigger("f", cargo{})
			r.completed(id)
			said.take()
			r = b.restart(f)
			synctest.Wait()
			expect(t, "state", r.completed(id).State, "done")
			expect(t, "steps called", said.String(), "")
			expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
		}),
		"R06_resume_unknown_id": inRow(func(t *testing.T, b *bed) {
			ctx := context.Background()
			r := b.start(flowOf("f", one(to(done))))
			_, run := r.Run(ctx, 999)
			_, wait := r.WaitRun(ctx, 999)
			_, history := r.History(ctx, 999)
			for what, err := range map[string]error{
				"Run": run, "WaitRun": wait, "History": history, "ResumeRun": r.ResumeRun(ctx, 999), "CancelRun": r.CancelRun(ctx, 999),
			} {
				expectError(t, what, err, segno.ErrNotFound)
			}
		}),
		"R07_resume_foreign_label": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			id := b.start(flowOf("f", line(&said, unless(&alive, legC), to(done)))).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			said.take()
			r := b.start(flowOf("f", one(says(&said, "other", to(done)))))
			info, err := r.WaitRun(context.Background(), id)
			expectError(t, "WaitRun", err, segno.ErrStuck)
			expect(t, "the reason names the state", strings.Contains(info.StuckReason, `"b"`), true)
			expect(t, "steps called", said.String(), "")
		}),
		"R08_router_skipped": inRow(func(t *testing.T, b *bed) { // a router is a step like any other, with its row
			var said tally
			alive := false
			w := line(&said, unless(&alive, legC), to(done))
			w.Initial, w.Steps["route"] = "route", segno.Step[leg, cargo]{Do: says(&said, "route", to(legA))}
			id := b.start(flowOf("f", w)).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			alive = true
			r := b.start(flowOf("f", w))
			r.completed(id)
			expect(t, "steps called", said.String(), "route a b b c")
			expect(t, "log", r.log(id), "enter route, enter a, enter b, crash b, enter c, end done")
			expect(t, "visits", r.info(id).Visit, 5)
		}),
		"R10_duplicate_sequence": inRow(referenceDuplicate),
		"R11_load_sorted": inRow(func(t *testing.T, b *bed) {
			var said tally
			r := b.start(many("f", line(&said, segno.Sleep[cargo](2*time.Second, legC), to(done))))
			var ids []segno.RunID
			for range 5 { // their entries stand between one another's in the file
				ids = append(ids, r.trigger("f", cargo{}))
				time.Sleep(time.Second)
			}
			for _, id := range ids {
				r.completed(id)
				last := int64(0)
				for _, e := range r.entries(id) {
					expect(t, "ids rise", e.ID > last, true)
					last = e.ID
				}
				expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
			}
		}),
		"R12_clear_isolated": inRow(func(t *testing.T, b *bed) { // what is cleared are the memos of a closed visit
			var said tally
			note := func(ctx context.Context, c *cargo) (leg, error) {
				v, found, err := segno.LoadMemo[int](ctx, "m")
				if err != nil || found {
					said.add("%s:%d", segno.InfoFrom(ctx).State, v)
					return legC, err
				}
				return "", errors.Join(segno.SaveMemo(ctx, "m", c.N), segno.Snooze(time.Duration(c.N)*time.Hour))
			}
			after := func(ctx context.Context, _ *cargo) (leg, error) {
				_, found, err := segno.LoadMemo[int](ctx, "m")
				said.add("%v", found)
				return done, err
			}
			r := b.start(many("f", route{Initial: legA, Steps: legs{legA: {Do: note}, legC: {Do: after}, done: {Final: true}}}))
			short, long := r.trigger("f", cargo{N: 1}), r.trigger("f", cargo{N: 2})
			r.completed(short)
			r.completed(long)
			expect(t, "memos", said.String(), "a:1 false a:2 false")
		}),
		"R13_reopen": inRow(func(t *testing.T, b *bed) {
			var said tally
			f := flowOf("f", line(&said, to(legC), fail))
			r := b.start(f)
			id := r.trigger("f", cargo{N: 3})
			r.ended(id, segno.RunFailed)
			before := fmt.Sprint(r.entries(id), r.info(id))
			b.stop()
			r = b.start(f)
			expect(t, "history and run", fmt.Sprint(r.entries(id), r.info(id)), before)
		}),
		"R14_corrupt_row": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			f := many("f", line(&said, unless(&alive, legC), to(done)))
			r := b.start(f)
			bad, good := r.trigger("f", cargo{N: 1}), r.trigger("f", cargo{N: 2})
			synctest.Wait()
			b.kill()
			alive = true
			b.exec(`UPDATE _segno_run SET data = '{"n":"many"}' WHERE run = ?`, bad)
			r = b.start(f)
			r.completed(good)
			_, err := r.WaitRun(context.Background(), bad)
			expectError(t, "WaitRun", err, segno.ErrStuck)
			expect(t, "the error names the run and the cause", contains(err.Error(), fmt.Sprintf("run %d", bad), "decoded"), true)
		}),
		"R15_big_blob": inRow(func(t *testing.T, b *bed) {
			const size = 5 << 20
			b.opts.MaxData = 8 << 20
			var said tally
			alive := false
			w := change(saga(1, &said, nil), "s1", func(s *segno.Step[leg, cargo]) {
				s.Do = func(_ context.Context, c *cargo) (leg, error) { c.Text = strings.Repeat("x", size); return "s2", nil }
				s.Undo = func(_ context.Context, c cargo) error { said.add("undo:%d", len(c.Text)); return nil }
			})
			w.Steps["s2"] = segno.Step[leg, cargo]{Do: func(ctx context.Context, c *cargo) (leg, error) {
				said.add("s2:%d", len(c.Text))
				if alive {
					return "", errTest
				}
				return hold(ctx, c)
			}}
			id := b.start(flowOf("f", w)).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			alive = true
			r := b.start(flowOf("f", w))
			r.ended(id, segno.RunFailed)
			expect(t, "data", said.String(), fmt.Sprintf("s2:%[1]d s2:%[1]d undo:%[1]d", size))
		}),
		"R16_concurrent_ids": inRow(func(t *testing.T, b *bed) {
			double := func(next leg) do {
				return func(_ context.Context, c *cargo) (leg, error) { c.N *= 2; return next, nil }
			}
			r := b.start(many("f", route{Initial: legA, Steps: legs{legA: {Do: double(legB)}, legB: {Do: double(legC)}, legC: {Do: double(done)}, done: {Final: true}}}))
			ids := make([]segno.RunID, 16)
			for i := range ids {
				ids[i] = r.trigger("f", cargo{N: i + 1})
			}
			for i, id := range ids {
				expect(t, "data", string(r.completed(id).Data), fmt.Sprintf(`{"n":%d}`, 8*(i+1)))
				expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
			}
		}),
		"R17_concurrent_same_id": inRow(func(t *testing.T, b *bed) {
			b.with(segno.Options{Schema: toldSchema})
			r := b.start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
				errs := make([]error, 32)
				var wg sync.WaitGroup
				for i := range errs {
					wg.Go(func() { errs[i] = errors.Join(segno.SaveMemo(ctx, fmt.Sprint(i), i), tell(ctx, "row")) })
				}
				wg.Wait()
				for i := range errs {
					v, found, err := segno.LoadMemo[int](ctx, fmt.Sprint(i))
					if err != nil || !found || v != i {
						errs = append(errs, fmt.Errorf("memo %d: %d, %v, %w", i, v, found, err))
					}
				}
				return done, errors.Join(errs...)
			})))
			r.completed(r.trigger("f", cargo{}))
			expect(t, "rows", strings.Count(r.told(), "row"), 32)
		}),
		"R18_race_fresh": inRow(func(t *testing.T, b *bed) {
			r := b.start(many("f", one(to(done))))
			errs := make(chan error, 2)
			for n := range 2 {
				go func() {
					_, err := r.Trigger(context.Background(), "f", segno.Trigger{Key: "order", Input: cargo{N: n + 1}})
					errs <- err
				}()
			}
			first, second := <-errs, <-errs
			if (first == nil) == (second == nil) {
				t.Errorf("two triggers with one key: got errors %v and %v, want one", first, second)
			}
			expectError(t, "the other", errors.Join(first, second), segno.ErrKeyReused)
			expect(t, "runs", len(r.runs("f")), 1)
			r.completed(r.runs("f")[0].ID)
		}),
		"R19_race_resume": inRow(func(t *testing.T, b *bed) {
			var said, undone tally
			alive := false
			f := flowOf("f", saga(1, &undone, says(&said, "s2", unless(&alive, done))))
			id := b.start(f).trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			r := b.start(f)
			first := b.run
			synctest.Wait()
			_, err := b.tryStart(context.Background(), f)
			expectError(t, "the second to resume", err, segno.ErrLocked)
			b.run = first
			synctest.Wait()
			expect(t, "calls, and undos", said.String()+"/"+undone.String(), "s2 s2/")
			expect(t, "status", r.info(id).Status, segno.RunRunning)
			b.hurry()
		}),
		"R20_leftover_log": inRow(func(t *testing.T, b *bed) {
			var said tally
			r := b.start(flowOf("f", line(&said, to(legC), fail)))
			first := r.trigger("f", cargo{N: 1})
			r.ended(first, segno.RunFailed)
			before := fmt.Sprint(r.entries(first))
			second := r.trigger("f", cargo{N: 2})
			r.ended(second, segno.RunFailed)
			expect(t, "rows of the first run", fmt.Sprint(r.entries(first)), before)
			expect(t, "log of the second", r.log(second), "enter a, enter b, enter c, end c")
		}),
		"R21_append_failure": inRow(func(t *testing.T, b *bed) { // a commit that fails is the end of the process, not of the run
			var said, undone tally
			f := flowOf("f", saga(2, &undone, says(&said, "s3", to(done))))
			w := change(f.Workflow.(route), "s2", func(s *segno.Step[leg, cargo]) {
				s.Do = func(_ context.Context, c *cargo) (leg, error) {
					b.dead.Store(said.add("s2") == 1)
					return "s3", nil
				}
			})
			r := b.start(flowOf("f", w))
			id := r.trigger("f", cargo{})
			_, err := r.WaitRun(context.Background(), id)
			expectError(t, "WaitRun", err, segno.ErrStoreFailed)
			b.kill()
			r = b.start(flowOf("f", w))
			r.completed(id)
			expect(t, "calls, and undos", said.String()+"/"+undone.String(), "s2 s2 s3/")
			expect(t, "log", r.log(id), "enter s1, enter s2, crash s2, enter s3, end done")
		}),
		"R22_exit_append_failure": inRow(func(t *testing.T, b *bed) {
			var said, undone tally
			f := flowOf("f", saga(2, &undone, func(context.Context, *cargo) (leg, error) {
				b.dead.Store(said.add("s3") == 1)
				return done, nil
			}))
			r := b.start(f)
			id := r.trigger("f", cargo{})
			_, err := r.WaitRun(context.Background(), id)
			expectError(t, "WaitRun", err, segno.ErrStoreFailed)
			b.kill()
			r = b.start(f)
			r.completed(id)
			expect(t, "calls, and undos", said.String()+"/"+undone.String(), "s3 s3/")
		}),
		"R23_fail_keeps_log": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			ends := func(ctx context.Context, c *cargo) (leg, error) {
				if !alive {
					return "", errTest
				}
				return done, nil
			}
			f := flowOf("f", line(&said, to(legC), ends))
			r := b.start(f)
			id := r.trigger("f", cargo{N: 7})
			r.ended(id, segno.RunFailed)
			alive = true
			r = b.restart(f)
			expect(t, "log", r.log(id), "enter a, enter b, enter c, end c")
			again, err := r.Rerun(context.Background(), id)
			expectError(t, "Rerun", err, nil)
			expect(t, "data of the new run", string(r.completed(again).Data), `{"n":7}`)
		}),
		"R24_clear_failure": inRow(func(t *testing.T, b *bed) { // the end is one commit: nothing is left to clear behind it
			var said tally
			last := int64(0)
			f := flowOf("f", line(&said, to(legC), func(context.Context, *cargo) (leg, error) {
				last = b.commits.Load()
				return done, nil
			}))
			r := b.start(f)
			id := r.trigger("f", cargo{})
			r.completed(id)
			b.kill() // right behind that commit
			expect(t, "commits of the end", b.commits.Load()-last, 1)
			b.start(f).completed(id)
			expect(t, "steps called", said.String(), "a b c")
		}),
	}
}
