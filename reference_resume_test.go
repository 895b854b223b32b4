package segno_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/segnotest"
	"github.com/segnodev/segno/store"
)

// referenceResume are the later rows of the engine's group R: what may have
// changed by the time a run goes on.
func referenceResume() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"R25_version_mismatch": inRow(func(t *testing.T, b *bed) {
			var said, up tally
			b.opts.Resources = []segno.Resource{resource("x", &up)}
			id := interrupted(b, line(&said, hold, to(done)))
			up.take()
			w := line(&said, to(legC), to(done))
			w.Version = 2
			info, err := b.start(flowOf("f", w)).WaitRun(context.Background(), id)
			expectError(t, "WaitRun", err, segno.ErrStuck)
			expect(t, "the reason names both versions", contains(info.StuckReason, "version 0", "workflow 2"), true)
			b.stop()
			expect(t, "steps called", said.String(), "a b")
			expect(t, "resource", up.String(), "+x -x(value of x)")
		}),
		"R26_version_mixed": inRow(func(t *testing.T, b *bed) { // Migrate translates the head, older entries stay as they are
			var said tally
			id := interrupted(b, line(&said, hold, to(done)))
			w := line(&said, hold, to(done))
			w.Version, w.Migrate = 1, func(_ int, state string, data []byte) (leg, cargo, error) { return leg(state), cargo{N: 5}, nil }
			b.start(flowOf("f", w))
			synctest.Wait()
			b.kill()
			w = line(&said, to(legC), to(done))
			w.Version = 1
			r := b.start(flowOf("f", w))
			expect(t, "data", string(r.completed(id).Data), `{"n":5}`)
			var versions []int
			for _, e := range r.entries(id) {
				versions = append(versions, e.Version)
			}
			expect(t, "versions", fmt.Sprint(versions), "[0 0 0 1 1 1]")
			expect(t, "log", r.log(id), "enter a, enter b, crash b, crash b, enter c, end done")
		}),
		"R27_legacy_rows": inRow(func(t *testing.T, b *bed) { // a workflow without a version has version 0
			var said tally
			id := interrupted(b, line(&said, hold, to(done)))
			w := line(&said, to(legC), to(done))
			w.Version = 1
			_, err := b.start(flowOf("f", w)).WaitRun(context.Background(), id)
			expectError(t, "WaitRun at version 1", err, segno.ErrStuck)
			w.Version = 0
			r := b.restart(flowOf("f", w))
			expectError(t, "ResumeRun", r.ResumeRun(context.Background(), id), nil)
			expect(t, "version", r.completed(id).Version, 0)
		}),
		"R28_unknown_mid_label": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := false
			id := interrupted(b, line(&said, to(legC), unless(&alive, done)))
			w := line(&said, to(legC), fail)
			w.Steps["renamed"] = w.Steps[legB]
			delete(w.Steps, legB)
			r := b.start(flowOf("f", w))
			e := r.ended(id, segno.RunFailed)
			expect(t, "Path", strings.Join(e.Path, " "), "a b c")
			expect(t, "steps called", said.String(), "a b c c")
		}),
		"R29_missing_entry_row": inRow(func(t *testing.T, b *bed) { // memos and snoozes leave no row, and the run goes on from them
			var said tally
			w := line(&said, func(ctx context.Context, c *cargo) (leg, error) {
				n, _, err := segno.LoadMemo[int](ctx, "cursor")
				said.add("%d", n)
				if err != nil || n == 2 {
					return legC, err
				}
				if err := segno.SaveMemo(ctx, "cursor", n+1); err != nil || n == 1 {
					return hold(ctx, c)
				}
				return "", segno.Snooze(time.Minute)
			}, to(done))
			r := b.start(flowOf("f", w))
			id := r.trigger("f", cargo{})
			time.Sleep(2 * time.Minute)
			expect(t, "log", r.log(id), "enter a, enter b")
			r = b.restart(flowOf("f", w))
			r.completed(id)
			expect(t, "cursors", said.String(), "a b 0 b 1 b 2 c")
		}),
		"R30_unsorted_store": inRow(func(t *testing.T, b *bed) {
			undone := map[int]*tally{1: {}, 2: {}}
			alive := false
			w := saga(3, nil, func(ctx context.Context, c *cargo) (leg, error) {
				if alive {
					return "", errTest
				}
				return hold(ctx, c)
			})
			for i := 1; i <= 3; i++ {
				change(w, leg(fmt.Sprintf("s%d", i)), func(s *segno.Step[leg, cargo]) {
					s.Do = func(context.Context, *cargo) (leg, error) {
						time.Sleep(time.Millisecond) // so that the other run's entry comes between
						return leg(fmt.Sprintf("s%d", i+1)), nil
					}
					s.Undo = func(ctx context.Context, c cargo) error { undone[c.N].add("%d", i); return nil }
				})
			}
			r := b.start(many("f", w))
			first, second := r.trigger("f", cargo{N: 1}), r.trigger("f", cargo{N: 2})
			time.Sleep(time.Second)
			expect(t, "entries stand between one another's", r.entries(first)[2].ID > r.entries(second)[1].ID, true)
			b.kill()
			alive = true
			r = b.start(many("f", w))
			r.ended(first, segno.RunFailed)
			r.ended(second, segno.RunFailed)
			expect(t, "undone", undone[1].String()+"/"+undone[2].String(), "3 2 1/3 2 1")
		}),
		"R31_path_after_resume": inRow(func(t *testing.T, b *bed) {
			var said tally
			id := interrupted(b, line(&said, hold, fail))
			e := b.start(flowOf("f", line(&said, to(legC), fail))).ended(id, segno.RunFailed)
			expect(t, "Path", strings.Join(e.Path, " "), "a b c")
			expect(t, "State", e.State, "c")
		}),
		"R32_resume_setup_failure": inRow(func(t *testing.T, b *bed) {
			var said tally
			id := interrupted(b, line(&said, hold, to(done)))
			stored := "SELECT j.*, r.state, r.held, r.crashes FROM _segno_journal j JOIN _segno_run r USING (run) ORDER BY id"
			before := strings.Join(b.rows(stored), "\n")
			f := flowOf("f", line(&said, to(legC), to(done)))
			b.opts.Resources = []segno.Resource{{Key: "x", Setup: func(context.Context) (any, error) { return nil, errTest }}}
			_, err := b.tryStart(context.Background(), f)
			expectError(t, "Start", err, errTest)
			expect(t, "the file", strings.Join(b.rows(stored), "\n"), before)
			expect(t, "steps called", said.take(), "a b")
			b.opts.Resources = nil
			r := b.start(f)
			r.completed(id)
			expect(t, "log", r.log(id), "enter a, enter b, crash b, enter c, end done")
		}),
		"R33_resume_teardown": inRow(func(t *testing.T, b *bed) {
			var said, up tally
			b.opts.Resources = []segno.Resource{resource("x", &up)}
			id := interrupted(b, line(&said, hold, to(done)))
			version := line(&said, hold, to(done))
			version.Version = 3
			for name, w := range map[string]segno.Definition{"no such run": nil, "other version": version, "unknown state": one(to(done))} {
				up.take()
				if name == "no such run" { // the flow is not even registered
					b.start(flowOf("g", one(to(done))))
				} else {
					_, err := b.start(flowOf("f", w)).WaitRun(context.Background(), id)
					expectError(t, name, err, segno.ErrStuck)
				}
				b.stop()
				expect(t, name, up.String(), "+x -x(value of x)")
			}
		}),
		"R34_resume_budget": inRow(func(t *testing.T, b *bed) { // the deadline is the first one, not a new one
			var said tally
			w := line(&said, hold, to(done))
			w.Timeout = time.Minute
			begin := time.Now()
			r := b.start(flowOf("f", w))
			id := r.trigger("f", cargo{})
			time.Sleep(50 * time.Second)
			b.kill()
			time.Sleep(5 * time.Second)
			e := b.start(flowOf("f", w)).ended(id, segno.RunFailed)
			expectError(t, "the run", e, context.DeadlineExceeded)
			expect(t, "ended after", time.Since(begin), time.Minute)
			expect(t, "steps called", said.String(), "a b b")
		}),
		"R41_sigkill_state": referenceSigkill,
		"R44_large_log":     referenceLargeLog,
		"R45_list_interrupted": inRow(func(t *testing.T, b *bed) {
			var said tally
			alive := true
			f := many("f", line(&said, unless(&alive, legC), to(done)))
			r := b.start(f)
			for range 2 {
				r.completed(r.trigger("f", cargo{}))
			}
			alive = false
			id := r.trigger("f", cargo{})
			synctest.Wait()
			b.kill()
			from, err := segno.OpenReader(context.Background(), b.path)
			if err != nil {
				t.Fatal(err)
			}
			open, err := from.Runs(context.Background(), segno.RunFilter{Status: []segno.RunStatus{segno.RunRunning}})
			if err != nil || len(open) != 1 || open[0].ID != id || open[0].State != "b" {
				t.Errorf("interrupted runs: got = %v, %v, want run %d in b", open, err, id)
			}
			expectError(t, "Close", from.Close(), nil)
			alive = true
			b.start(f).completed(id)
		}),
		"R46_crash_during_rollback": inRow(func(t *testing.T, b *bed) {
			var did, undone tally
			alive := false
			w := change(saga(3, &undone, says(&did, "s4", fail)), "s2", func(s *segno.Step[leg, cargo]) {
				s.Undo = func(ctx context.Context, c cargo) error {
					undone.add("s2:%d", c.N)
					_, err := unless(&alive, done)(ctx, &c)
					return err
				}
			})
			id := interrupted(b, w)
			alive = true
			r := b.start(flowOf("f", w))
			expect(t, "Err", r.ended(id, segno.RunFailed).Err.Error(), errTest.Error())
			expect(t, "undone", undone.String(), "s3:3 s2:2 s2:2 s1:1")
			expect(t, "forward steps after the first failure", did.String(), "s4")
		}),
		"R47_lease_expiry": inRow(func(t *testing.T, b *bed) { // there is no lease: the lock dies with its owner
			var said tally
			alive := false
			f := flowOf("f", line(&said, unless(&alive, legC), to(done)))
			first := b.start(f)
			id := first.trigger("f", cargo{})
			dead := b.dead
			next := make(chan *live)
			b.opts.Standby = true
			go func() { next <- b.start(f) }()
			time.Sleep(time.Minute)
			synctest.Wait()
			expect(t, "steps while the owner lives", said.String(), "a b")
			dead.Store(true)
			alive = true
			begin := time.Now()
			_, err := first.Trigger(context.Background(), "f", segno.Trigger{})
			expectError(t, "a write of the old owner", err, segno.ErrStoreFailed)
			r := <-next
			r.completed(id)
			if took := time.Since(begin); took > 100*time.Millisecond {
				t.Errorf("the takeover took: got = %v, want no waiting", took)
			}
			expect(t, "steps called", said.String(), "a b b c")
			expectError(t, "Wait of the old owner", first.Wait(), segno.ErrStoreFailed)
		}),
	}
}

// interrupted starts a run of the flow "f" and kills the process when it does
// not go on by itself.
func interrupted(b *bed, w segno.Definition) segno.RunID {
	b.t.Helper()
	id := b.start(flowOf("f", w)).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	return id
}

// referenceDuplicate writes one transition twice.
func referenceDuplicate(t *testing.T, b *bed) {
	ctx := context.Background()
	var said tally
	f := many("f", line(&said, segno.Sleep[cargo](time.Hour, legC), to(done)))
	r := b.start(f)
	id, other := r.trigger("f", cargo{}), r.trigger("f", cargo{})
	synctest.Wait()
	before := fmt.Sprint(r.entries(other))
	b.stop()
	now := func() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
	st, err := store.Open(ctx, store.Config{Path: b.path, SmallWAL: true, Logger: slog.New(slog.DiscardHandler), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	h, err := st.Run(ctx, int64(id))
	if err != nil {
		t.Fatal(err)
	}
	enter := func(state string) error {
		c := &engine.Change{Before: &h, After: h}
		c.After.State, c.After.Visit = state, h.Visit+1
		c.Entries = []engine.Entry{{Kind: engine.KindEnter, State: state, Visit: c.After.Visit, Attempt: 1, At: now()}}
		return st.Commit(ctx, c)
	}
	expectError(t, "the first", enter("c"), nil)
	expectError(t, "the second", enter("a"), store.ErrConflict)
	expectError(t, "Close", st.Close(), nil)
	expectError(t, "Release", st.Release(), nil)
	r = b.start(f)
	r.completed(id)
	expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
	expect(t, "the other run", fmt.Sprint(r.entries(other)), before)
}

// referenceLargeLog goes on, in real time, with a run that has 10,000 visits
// behind it, and rolls it back.
func referenceLargeLog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "test.db")
	undone, parks := make(chan int, 2), make(chan bool, 2)
	w := change(line(new(tally), func(ctx context.Context, _ *cargo) (leg, error) {
		if segno.InfoFrom(ctx).Visit == 2 {
			parks <- true
			return "", segno.Snooze(time.Hour)
		}
		return "", errTest
	}, to(done)), legA, func(s *segno.Step[leg, cargo]) {
		s.Undo = func(ctx context.Context, _ cargo) error { undone <- segno.InfoFrom(ctx).Visit; return nil }
	})
	register := func(s *segno.Scheduler) error { return s.Manual("f", w) }
	r := segnotest.OpenFile(t, path, segno.Options{}, register)
	id, err := r.Trigger(ctx, "f", segno.Trigger{})
	expectError(t, "Trigger", err, nil)
	<-parks
	expectError(t, "Stop", r.Stop(ctx), nil) // with the snooze committed
	growHistory(t, path, 10_000)
	begin := time.Now()
	info, err := segnotest.OpenFile(t, path, segno.Options{}, register).WaitRun(ctx, id)
	took := time.Since(begin)
	var e *segno.RunError
	expect(t, "a RunError", errors.As(err, &e), true)
	expect(t, "visit", info.Visit, 10_002)
	expect(t, "undone visit", <-undone, 1)
	if took > 30*time.Second { // some ten milliseconds on a machine that has nothing else to do; minutes if it read rows for each row
		t.Errorf("going on and rolling back took: got = %v, want far less than 30s", took)
	}
}

// growHistory puts n visits of state b behind the only run of the file, which
// is in its second visit, and wakes it.
func growHistory(t *testing.T, path string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, query := range []string{
		`WITH RECURSIVE more(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM more WHERE k < ` + fmt.Sprint(n) + `)
INSERT INTO _segno_journal (id, run, visit, kind, state, attempt, version, at, prev, prev_undo)
SELECT last + k, run, 2 + k, 'enter', 'b', 1, 0, created, last + k - 1, last FROM more, _segno_run`,
		`UPDATE _segno_run SET visit = 2 + ` + fmt.Sprint(n) + `, last = last + ` + fmt.Sprint(n) + `, undo_at = last, due = NULL, wake = 0`,
		`UPDATE _segno_owner SET journal_high = (SELECT max(id) FROM _segno_journal)`,
	} {
		if _, err := db.Exec(query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}
