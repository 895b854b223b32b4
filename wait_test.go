package segno_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func TestAFreshFlowIsIdle(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		expect(t, "Status", fmt.Sprintf("%+v", r.status("f")), fmt.Sprintf("%+v", segno.FlowInfo{ID: "f", Status: segno.StatusIdle}))
		_, err := r.Status(context.Background(), "x")
		expectError(t, "Status of an unknown flow", err, segno.ErrNotFound)
		expect(t, "HasRunningFlows", r.HasRunningFlows(), false)
	})
}

func TestStatusFollowsARun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(deaf(time.Second, done, nil))))
		time.Sleep(time.Minute)
		at := time.Now().UTC()
		id := r.trigger("f", cargo{})
		info := r.status("f")
		expect(t, "Status of a running flow", info.Status, segno.StatusRunning)
		expect(t, "RunCount", info.RunCount, 1)
		expect(t, "LastRun", info.LastRun, at)
		expect(t, "Open", info.Open, 1)
		expect(t, "HasRunningFlows", r.HasRunningFlows(), true)
		r.completed(id)
		info = r.status("f")
		expect(t, "Status of a completed flow", info.Status, segno.StatusCompleted)
		expect(t, "Open", info.Open, 0)
		expect(t, "HasRunningFlows", r.HasRunningFlows(), false)
		run := r.info(id)
		expect(t, "Created", run.Created, at)
		expect(t, "Started", run.Started, at)
		expect(t, "Ended", run.Ended, at.Add(time.Second))
	})
}

func TestListIsInTheOrderOfRegistration(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ids := func(r *live) string {
			var ids []string
			list, err := r.List(context.Background())
			for _, info := range list {
				ids = append(ids, info.ID)
			}
			return strings.Join(ids, " ") + fmt.Sprint(err)
		}
		w := one(to(done))
		expect(t, "List", ids(b.start(flowOf("c", w), flowOf("a", w), flowOf("b", w))), "c a b<nil>")
		expect(t, "List in another order, with a new flow and one gone", ids(b.restart(flowOf("d", w), flowOf("b", w), flowOf("c", w))), "d b c a<nil>")
	})
}

func TestRunsAreFilteredAndNewestFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		r := newBed(t).start(
			segno.Flow{ID: "f", Workflow: one(to(done)), Overlap: segno.Allow(0)},
			segno.Flow{ID: "g", Workflow: one(fail), Overlap: segno.Allow(0)},
		)
		err := r.Write(ctx, func(tx segno.Tx) error {
			for range 60 {
				_, f := tx.Trigger("f", segno.Trigger{})
				_, g := tx.Trigger("g", segno.Trigger{})
				if err := errors.Join(f, g); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ids := func(f segno.RunFilter) string {
			runs, err := r.Runs(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if len(runs) == 0 {
				return "none"
			}
			return fmt.Sprintf("%d: %d … %d", len(runs), runs[0].ID, runs[len(runs)-1].ID)
		}
		for name, c := range map[string]struct {
			f    segno.RunFilter
			want string
		}{
			"the zero value": {segno.RunFilter{}, "100: 120 … 21"},
			"a flow":         {segno.RunFilter{Flow: "f"}, "60: 119 … 1"},
			"a status":       {segno.RunFilter{Status: []segno.RunStatus{segno.RunFailed}}, "60: 120 … 2"},
			"two statuses":   {segno.RunFilter{Status: []segno.RunStatus{segno.RunFailed, segno.RunCompleted}, Limit: 1000}, "120: 120 … 1"},
			"a page":         {segno.RunFilter{Flow: "g", Before: 100, Limit: 10}, "10: 98 … 80"},
			"nothing":        {segno.RunFilter{Flow: "x"}, "none"},
		} {
			expect(t, name, ids(c.f), c.want)
		}
	})
}

func TestWaitRunReturnsARunThatHasEndedAlready(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		f := flowOf("f", one(to(done)))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		r.completed(id)
		r.completed(id)
		r = b.restart(f)
		r.completed(id)
		_, err := r.WaitRun(ctx, 999)
		expectError(t, "WaitRun of an unknown run", err, segno.ErrNotFound)
	})
}

func TestManyMayWaitForARun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(segno.Sleep[cargo](time.Minute, done))))
		id := r.trigger("f", cargo{})
		got := make(chan segno.RunStatus)
		for range 20 {
			go func() { info, _ := r.WaitRun(context.Background(), id); got <- info.Status }()
		}
		for range 20 {
			expect(t, "status", <-got, segno.RunCompleted)
		}
	})
}

func TestWaitRunEndsWithItsContextOrTheScheduler(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(segno.Sleep[cargo](time.Hour, done))))
		id := r.trigger("f", cargo{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		begin := time.Now()
		info, err := r.WaitRun(ctx, id)
		expectError(t, "WaitRun", err, context.DeadlineExceeded)
		expect(t, "took", time.Since(begin), time.Minute)
		expect(t, "the run it names", info.ID, id)
		ended := make(chan error, 1)
		go func() { _, err := r.WaitRun(context.Background(), id); ended <- err }()
		synctest.Wait()
		b.stop()
		expectError(t, "WaitRun when the scheduler stops", <-ended, segno.ErrStopped)
	})
}

func TestNoEndIsMissedByAWaiter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: route{Initial: legA, Steps: legs{
			legA: {Do: segno.Sleep[cargo](2*time.Second, legB)},
			legB: {Do: to(done)},
			done: {Final: true},
		}}})
		left := make(chan struct{}, 100)
		for i := range 100 {
			go func() {
				id := r.trigger("f", cargo{})
				time.Sleep(time.Duration(i%3) * time.Second) // before, at and behind its parking and waking
				r.completed(id)
				left <- struct{}{}
			}()
		}
		for range 100 {
			<-left
		}
	})
}

func TestWriteIsOneCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		f := segno.Flow{ID: "f", Workflow: one(to(done)), Overlap: segno.Allow(0)}
		r := b.start(f)
		synctest.Wait()
		before := b.commits.Load()
		var id segno.RunID
		err := r.Write(ctx, func(tx segno.Tx) error {
			if _, err := tx.Exec("INSERT INTO told VALUES (?)", "order"); err != nil {
				return err
			}
			var n int
			if err := tx.QueryRow("SELECT count(*) FROM told").Scan(&n); err != nil || n != 1 {
				return fmt.Errorf("count %d, %w", n, err)
			}
			rows, err := tx.Query("SELECT what FROM told")
			if err != nil || !rows.Next() { // left open on purpose
				return errors.Join(err, errTest)
			}
			id, err = tx.Trigger("f", segno.Trigger{Input: cargo{N: 3}})
			return errors.Join(err, rows.Err())
		})
		if err != nil {
			t.Fatalf("Write: got error %v, want none", err)
		}
		expect(t, "data", string(r.completed(id).Data), `{"n":3}`)
		expect(t, "commits: one for the row and the run, one for its end", b.commits.Load()-before, 2)

		err = r.Write(ctx, func(tx segno.Tx) error {
			_, err := tx.Exec("INSERT INTO told VALUES ('lost')")
			_, trigger := tx.Trigger("f", segno.Trigger{})
			return errors.Join(err, trigger, errTest)
		})
		expectError(t, "a Write that fails", err, errTest)
		err = r.Write(ctx, func(tx segno.Tx) error {
			_, _ = tx.Exec("INSERT INTO told VALUES ('lost')")
			panic("in Write")
		})
		expectError(t, "a Write that panics", err, segno.ErrPanic)
		expect(t, "rows", r.told(), "order")
		expect(t, "runs", len(r.runs("f")), 1)
		r = b.restart(f)
		expect(t, "rows after a restart", r.told(), "order")
		expect(t, "run count after a restart", r.status("f").RunCount, 1)
	})
}

func TestATxRefusesWhatWouldEndTheSharedTransaction(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		for _, query := range []string{"BEGIN", "commit", " /* x */ ROLLBACK", "SAVEPOINT a", "RELEASE a", "ATTACH 'x' AS y", "PRAGMA synchronous = OFF", "SELECT 1; COMMIT", "VACUUM"} {
			err := r.Write(context.Background(), func(tx segno.Tx) error {
				_, err := tx.Exec(query)
				return err
			})
			expectError(t, query, err, segno.ErrTx)
			err = r.Write(context.Background(), func(tx segno.Tx) error {
				var n int
				return tx.QueryRow(query).Scan(&n)
			})
			expectError(t, query+" as a query", err, segno.ErrTx)
		}
		r.completed(r.trigger("f", cargo{}))
	})
}

func TestATxIsOfNoUseBehindItsFunction(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		var kept segno.Tx
		if err := r.Write(context.Background(), func(tx segno.Tx) error { kept = tx; return nil }); err != nil {
			t.Fatal(err)
		}
		_, err := kept.Exec("CREATE TABLE late (x)")
		expectError(t, "Exec", err, segno.ErrTx)
		_, err = kept.Query("SELECT 1")
		expectError(t, "Query", err, segno.ErrTx)
		expectError(t, "QueryRow", kept.QueryRow("SELECT 1").Scan(new(int)), segno.ErrTx)
	})
}

func TestAnOrderAndItsRunAreMadeTogetherOrNotAtAll(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		f := segno.Flow{ID: "f", Workflow: one(fail), Backoff: segno.BackoffPolicy{StreakLimit: 1}}
		r := b.start(f)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		err := r.Write(context.Background(), func(tx segno.Tx) error {
			if _, err := tx.Exec("INSERT INTO told VALUES ('order')"); err != nil {
				return err
			}
			_, err := tx.Trigger("f", segno.Trigger{})
			return err
		})
		expectError(t, "Write", err, segno.ErrTripped)
		expect(t, "rows", r.told(), "")
	})
}

func TestSchemaThatFailsFailsStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		b.opts.Schema = func(tx segno.Tx) error {
			_, err := tx.Exec("CREATE TABLE half (x)")
			_, trigger := tx.Trigger("f", segno.Trigger{})
			expectError(t, "Trigger in Schema", trigger, segno.ErrConfig)
			return errors.Join(err, errTest)
		}
		_, err := b.tryStart(context.Background(), flowOf("f", one(to(done))))
		expectError(t, "Start", err, errTest)
		b.opts.Schema = nil
		r := b.start(flowOf("f", one(to(done))))
		lines, err := queryLines(r.DB(), "SELECT count(*) FROM sqlite_master WHERE name = 'half'")
		expect(t, "tables of the failed Schema", fmt.Sprint(lines, err), "[0] <nil>")
	})
}

func TestDBIsReadOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		r := b.start(flowOf("f", one(to(done))))
		if _, err := r.DB().Exec("INSERT INTO told VALUES ('x')"); err == nil {
			t.Error("INSERT through DB: got no error, want one")
		}
		var open []*sql.Rows
		for range 4 { // its own pool: the scheduler goes on beside readers that stay
			rows, err := r.DB().Query("SELECT * FROM segno_flows")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, rows)
		}
		r.completed(r.trigger("f", cargo{}))
		for _, rows := range open {
			if err := errors.Join(rows.Err(), rows.Close()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestABackupIsAWholeFile(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		f := flowOf("f", one(segno.Sleep[cargo](time.Hour, done)))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		path := filepath.Join(filepath.Dir(b.path), "backup.db")
		if err := r.Backup(ctx, path); err != nil {
			t.Fatalf("Backup: got error %v, want none", err)
		}
		if err := r.Backup(ctx, path); err == nil {
			t.Error("a second Backup to the same path: got no error, want one")
		}
		r.completed(id)
		b.stop()
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode of the backup: got = %v, %v, want 0600", st.Mode(), err)
		}
		b.path = path // it goes on from where the backup was made
		expect(t, "status in the backup", b.rows("SELECT status FROM segno_runs")[0], "parked")
		r = b.start(f)
		r.completed(id)
	})
}

func TestHistoryReadsLikeALog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		r := b.start(flowOf("f", route{Initial: legA, Steps: legs{
			legA: {Do: to(legB)},
			legB: {Do: s.failing(1), Retry: plain(2, time.Second)},
			done: {Final: true},
		}}))
		id := r.trigger("f", cargo{N: 1})
		r.completed(id)
		lines, err := queryLines(r.DB(), "SELECT at, visit, kind, state, attempt, error, data FROM segno_history WHERE run = ?", id)
		if err != nil {
			t.Fatal(err)
		}
		want := `2000-01-01T00:00:00.000Z|1|enter|a|1||{"n":1}
2000-01-01T00:00:00.000Z|2|enter|b|1||
2000-01-01T00:00:00.000Z|2|retry|b|1|test: went wrong in attempt 1|
2000-01-01T00:00:01.000Z|3|end|done|1||{"n":1}`
		expect(t, "segno_history", strings.Join(lines, "\n"), want)
		lines, err = queryLines(r.DB(), "SELECT run, flow, kind FROM segno_log ORDER BY id DESC LIMIT 2")
		expect(t, "segno_log", fmt.Sprint(lines, err), fmt.Sprintf("[%d|f|end %d|f|retry] <nil>", id, id))
		_, err = r.History(context.Background(), 999)
		expectError(t, "History of an unknown run", err, segno.ErrNotFound)
	})
}

func TestTheLogNamesRunsAndNeverTheirData(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var text lockedText
		b := newBed(t).with(segno.Options{Logger: slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		var said tally
		f := flowOf("flow-f", saga(1, &said, fail))
		r := b.start(f, flowOf("flow-g", one(hold)))
		id := r.trigger("flow-f", cargo{Text: "the-payload"})
		r.ended(id, segno.RunFailed)
		r.trigger("flow-g", cargo{Text: "the-payload"})
		synctest.Wait()
		b.restart(f) // flow-g is an orphan now
		synctest.Wait()
		b.stop()
		log := text.String()
		for _, want := range []string{"flow=flow-f", fmt.Sprintf("run=%d", id), "went wrong", "flow=flow-g", "interrupted=1"} {
			expect(t, "the log has "+want, strings.Contains(log, want), true)
		}
		expect(t, "the log has data", strings.Contains(log, "the-payload"), false)
	})
}

// lockedText is a buffer that several goroutines write.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
