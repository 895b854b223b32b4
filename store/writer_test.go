package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"modernc.org/sqlite"

	"github.com/segnodev/segno/engine"
)

// together has the writer take requests in one batch, in the given order, and
// returns their answers. It must be called in a bubble.
func together(s *Store, requests ...func() error) []error {
	busy := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Update(ctx, func(*Tx) error { <-busy; return nil }) })
	synctest.Wait()
	errs := make([]error, len(requests))
	for i, request := range requests {
		wg.Go(func() { errs[i] = request() })
		synctest.Wait()
	}
	close(busy)
	wg.Wait()
	return errs
}

// commits counts the transactions that the writer commits from now on.
func commits(t *testing.T, s *Store) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	err := s.w.conn.Raw(func(conn any) error {
		conn.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 { n.Add(1); return 0 })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &n
}

func insert(s *Store, table, value string) func() error {
	return func() error {
		return s.write(func(tx *Tx) error {
			_, err := tx.Exec("INSERT INTO "+table+" VALUES (?)", value)
			return err
		})
	}
}

func TestRequestsThatWaitShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)")
		n := commits(t, s)
		var requests []func() error
		for i := range 200 {
			requests = append(requests, insert(s, "t", strconv.Itoa(i)))
		}
		if err := errors.Join(together(s, requests...)...); err != nil {
			t.Fatal(err)
		}
		if got := one(t, s.DB(), "SELECT count(*) FROM t"); got != "200" {
			t.Errorf("rows: got = %s, want 200", got)
		}
		if got := n.Load(); got != 2 { // the one that kept the writer busy, and the batch
			t.Errorf("commits: got = %d, want 2", got)
		}
	})
}

func TestBatchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		n := commits(t, s)
		requests := make([]func() error, maxBatch+1)
		for i := range requests {
			requests[i] = func() error { return s.Update(ctx, func(*Tx) error { return nil }) }
		}
		if err := errors.Join(together(s, requests...)...); err != nil {
			t.Fatal(err)
		}
		if got := n.Load(); got != 3 {
			t.Errorf("commits: got = %d, want 3", got)
		}
	})
}

// Whatever one request does, its neighbours in the batch are committed, and it
// alone gets an error and leaves nothing behind.
//
//nolint:rowserrcheck,sqlclosecheck // rows are left open on purpose
func TestOneRequestFailsAlone(t *testing.T) {
	errNo := errors.New("no")
	exec := func(tx *Tx, queries ...string) (err error) {
		for _, q := range queries {
			_, next := tx.Exec(q)
			err = errors.Join(err, next)
		}
		return err
	}
	const own = "INSERT INTO t VALUES ('own')" // each culprit writes this first
	for _, tt := range []struct {
		name string
		fn   func(tx *Tx) error
		is   error // nil: any
		says []string
	}{
		{"returns an error", func(tx *Tx) error { return errNo }, errNo, nil},
		{"constraint", func(tx *Tx) error { return exec(tx, "INSERT INTO t VALUES ('taken')") }, nil, []string{"UNIQUE", "t.x"}},
		{"constraint through QueryRow", func(tx *Tx) error {
			var x string
			return tx.QueryRow("INSERT INTO t VALUES ('taken') RETURNING x").Scan(&x)
		}, nil, []string{"UNIQUE", "t.x"}},
		{"constraint seen at the commit only", func(tx *Tx) error {
			return exec(tx, "INSERT INTO child VALUES ('no such parent')")
		}, nil, []string{"FOREIGN KEY"}},
		{"panics", func(tx *Tx) error { panic("boom") }, engine.ErrPanic, []string{"boom", "writer_test.go"}},
		{"calls Goexit, as t.Fatal does", func(tx *Tx) error { runtime.Goexit(); return nil }, engine.ErrPanic, []string{"Goexit"}},
		{"ON CONFLICT ROLLBACK", func(tx *Tx) error {
			return exec(tx, "INSERT OR ROLLBACK INTO t VALUES ('taken')")
		}, ErrTx, []string{"UNIQUE", "ended the shared transaction"}},
		{"ON CONFLICT ROLLBACK, ignored", func(tx *Tx) error {
			_ = exec(tx, "INSERT OR ROLLBACK INTO t VALUES ('taken')")
			return nil
		}, ErrTx, []string{"UNIQUE", "ended the shared transaction"}},
		{"ON CONFLICT ROLLBACK, and goes on", func(tx *Tx) error {
			return exec(tx, "INSERT OR ROLLBACK INTO t VALUES ('taken')", "INSERT INTO t VALUES ('after')")
		}, ErrTx, nil},
		{"ON CONFLICT ROLLBACK through Query, and goes on", func(tx *Tx) error {
			rows, err := tx.Query("INSERT OR ROLLBACK INTO t VALUES ('taken') RETURNING x")
			if err == nil {
				err = rows.Err()
			}
			return errors.Join(err, exec(tx, "INSERT INTO t VALUES ('after')"))
		}, ErrTx, nil},
		{"ON CONFLICT ROLLBACK through QueryRow, and goes on", func(tx *Tx) error {
			var x string
			err := tx.QueryRow("INSERT OR ROLLBACK INTO t VALUES ('taken') RETURNING x").Scan(&x)
			return errors.Join(err, exec(tx, "INSERT INTO t VALUES ('after')"))
		}, ErrTx, nil},
		{"ON CONFLICT ROLLBACK through QueryRow, ignored", func(tx *Tx) error {
			tx.QueryRow("INSERT OR ROLLBACK INTO t VALUES ('taken')")
			return nil
		}, ErrTx, []string{"ended the shared transaction"}},
		{"second of two statements, and goes on", func(tx *Tx) error {
			return exec(tx, "INSERT INTO t VALUES ('first'); INSERT OR ROLLBACK INTO t VALUES ('taken'); INSERT INTO t VALUES ('third')",
				"INSERT INTO t VALUES ('after')")
		}, ErrTx, nil},
		{"RAISE(ROLLBACK)", func(tx *Tx) error {
			return exec(tx, "INSERT INTO guarded VALUES (1)", "INSERT INTO t VALUES ('after')")
		}, ErrTx, []string{"keep out"}},
		{"RAISE(ROLLBACK), ignored, and panics", func(tx *Tx) error {
			_ = exec(tx, "INSERT INTO guarded VALUES (1)")
			panic("boom")
		}, nil, []string{"boom"}},
		{"table locked by its own rows", func(tx *Tx) error {
			rows, err := tx.Query("SELECT x FROM t")
			if err != nil || !rows.Next() || rows.Err() != nil {
				return fmt.Errorf("no rows to leave open: %w", err)
			}
			return exec(tx, "DROP TABLE t")
		}, nil, []string{"locked"}},
		{"full-text index out of step with its table", func(tx *Tx) error {
			return exec(tx, "INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
		}, nil, []string{"malformed"}},
		{"refused statement", func(tx *Tx) error { return exec(tx, "COMMIT") }, ErrTx, []string{"COMMIT", "shared"}},
		{"syntax error", func(tx *Tx) error { return exec(tx, "INSERT INTO") }, nil, []string{"incomplete input"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := fresh(t)
				must(t, s, "CREATE TABLE t (x TEXT PRIMARY KEY)", "INSERT INTO t VALUES ('taken')",
					"CREATE TABLE parent (x TEXT PRIMARY KEY)",
					"CREATE TABLE child (x TEXT REFERENCES parent (x) DEFERRABLE INITIALLY DEFERRED)",
					"CREATE TABLE doc (x TEXT)", "CREATE VIRTUAL TABLE search USING fts5 (x, content = 'doc')", "INSERT INTO doc VALUES ('text')",
					"CREATE TABLE guarded (x)",
					"CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'keep out'); END")
				a, b := addRun(t, s, "f"), addRun(t, s, "f")
				stale := a
				stale.Seq += 7
				culprit := func(fn func(*Tx) error) func() error {
					return func() error {
						return s.write(func(tx *Tx) error {
							if _, err := tx.Exec(own); err != nil {
								return err
							}
							return fn(tx)
						})
					}
				}
				errs := together(s,
					insert(s, "t", "before"),
					func() error { return s.Commit(ctx, transition(a, "b")) },
					culprit(tt.fn),
					func() error { return s.Commit(ctx, transition(stale, "c")) },
					func() error { return s.Commit(ctx, transition(b, "b")) },
					insert(s, "t", "behind"),
				)
				for _, i := range []int{0, 1, 4, 5} {
					if errs[i] != nil {
						t.Errorf("neighbour %d: got = %v, want nil", i, errs[i])
					}
				}
				if errs[3] != ErrConflict {
					t.Errorf("stale transition: got = %v, want %v", errs[3], ErrConflict)
				}
				switch {
				case errs[2] == nil:
					t.Error("culprit: got = nil, want an error")
				case tt.is != nil:
					says(t, errs[2], tt.is, tt.says...)
				default:
					says(t, errs[2], errs[2], tt.says...)
				}
				if got, want := one(t, s.DB(), "SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x)"), "before,behind,taken"; got != want {
					t.Errorf("rows: got = %s, want %s", got, want)
				}
				if got, want := one(t, s.DB(), "SELECT group_concat(state) FROM _segno_run"), "b,b"; got != want {
					t.Errorf("states of the runs: got = %s, want %s", got, want)
				}
				if err := s.Err(); err != nil {
					t.Errorf("the store: got = %v, want it to work on", err)
				}
				must(t, s, "INSERT INTO t VALUES ('later')")
			})
		})
	}
}

// What the writer remembers of flows is what the file says, whoever failed.
func TestFlowsInMemoryFollowTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		addRun(t, s, "f")
		must(t, s, "CREATE TABLE t (x UNIQUE)", "INSERT INTO t VALUES (1)")
		add := func(n int64, then func(tx *Tx) error) func() error {
			return func() error {
				return s.Update(ctx, func(tx *Tx) error {
					tx.Flow("f").Runs += n
					if err := tx.AddFlow(Flow{ID: fmt.Sprint("new", n), Outcome: "idle", Registered: time.Now()}); err != nil {
						return err
					}
					return then(tx)
				})
			}
		}
		well := func(*Tx) error { return nil }
		ill := func(*Tx) error { return errors.New("no") }
		ends := func(tx *Tx) error {
			return tx.User("", func() error { _, err := tx.Exec("INSERT OR ROLLBACK INTO t VALUES (1)"); return err })
		}
		together(s, add(1, well), add(10, ill), add(100, well), add(1000, ends), add(10000, well))
		for _, where := range []string{"in the writer", "after opening again"} {
			var runs int64
			var ids []string
			if err := s.Update(ctx, func(tx *Tx) error {
				runs, ids = tx.Flow("f").Runs, tx.Flows()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if runs != 10101 || len(ids) != 4 {
				t.Errorf("%s: got = %d runs and flows %v, want 10101 and 4", where, runs, ids)
			}
			shut(t, s)
			s = open(t, s.path)
		}
	})
}

func TestHooksOfARequestFollowItsCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x UNIQUE)", "INSERT INTO t VALUES (1)")
		var mu sync.Mutex
		balance := map[string]int{} // what is arranged in a request, less what is taken back
		kept := map[string]int{}
		request := func(name string, then func(tx *Tx) error) func() error {
			return func() error {
				return s.Update(ctx, func(tx *Tx) error {
					mu.Lock()
					defer mu.Unlock()
					balance[name]++
					tx.Else(func() { balance[name]-- })
					tx.After(func() { kept[name]++ })
					return then(tx)
				})
			}
		}
		together(s,
			request("good", func(*Tx) error { return nil }),
			request("bad", func(*Tx) error { return errors.New("no") }),
			request("culprit", func(tx *Tx) error {
				return tx.User("", func() error { _, err := tx.Exec("INSERT OR ROLLBACK INTO t VALUES (1)"); return err })
			}),
			request("behind", func(*Tx) error { return nil }),
		)
		for name, want := range map[string]int{"good": 1, "bad": 0, "culprit": 0, "behind": 1} {
			if balance[name] != want || kept[name] != want {
				t.Errorf("%s: got = %d arranged and %d done after the commit, want %d of both", name, balance[name], kept[name], want)
			}
		}
	})
}

// A function on the writer that waited for the writer would wait for ever.
func TestWaitingForAnotherCommitIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		h := addRun(t, s, "f")
		says(t, s.write(func(*Tx) error { return s.write(func(*Tx) error { return nil }) }), ErrTx, "use its Tx")
		says(t, s.write(func(*Tx) error { return s.Commit(ctx, transition(h, "b")) }), ErrTx, "use its Tx")
		must(t, s, "CREATE TABLE t (x)")
	})
}

// Whatever many do at the same time: what was acknowledged is there, what was
// refused is not.
//
//nolint:rowserrcheck,sqlclosecheck // rows are left open on purpose
func TestManyRequestsAtOnce(t *testing.T) {
	s := fresh(t)
	must(t, s, "CREATE TABLE t (x TEXT PRIMARY KEY)", "INSERT INTO t VALUES ('taken')")
	const workers, rounds = 8, 60
	var acked, refused sync.Map
	var wg sync.WaitGroup
	for worker := range workers {
		h := addRun(t, s, "f")
		random := rand.New(rand.NewPCG(1, uint64(worker)))
		wg.Go(func() {
			for round := range rounds {
				value, way := fmt.Sprintf("%d/%d", worker, round), random.IntN(8)
				err := s.write(func(tx *Tx) error {
					if _, err := tx.Exec("INSERT INTO t VALUES (?)", value); err != nil {
						return err
					}
					switch way {
					case 0:
						return errors.New("no")
					case 1:
						panic("boom")
					case 2:
						_, err := tx.Exec("INSERT INTO t VALUES ('taken')")
						return err
					case 3:
						_, _ = tx.Exec("INSERT OR ROLLBACK INTO t VALUES ('taken')")
					case 4:
						_, err := tx.Query("SELECT x FROM t")
						return err
					}
					return nil
				})
				if err == nil {
					acked.Store(value, way)
				} else {
					refused.Store(value, way)
				}
				if (err != nil) != (way < 4) {
					t.Errorf("way %d: got = %v", way, err)
				}
				c := transition(h, "b")
				if way == 5 {
					c.Before.Seq--
					if err := s.Commit(ctx, c); err != ErrConflict {
						t.Errorf("stale transition: got = %v, want %v", err, ErrConflict)
					}
					continue
				}
				if err := s.Commit(ctx, c); err != nil {
					t.Errorf("transition: got = %v, want nil", err)
					return
				}
				h = c.After
			}
		})
	}
	wg.Wait()
	there, _ := lines(t, s.DB(), "SELECT x FROM t WHERE x <> 'taken'")
	for _, value := range there {
		if way, bad := refused.Load(value); bad {
			t.Errorf("%s of way %d: got = a row, want none: it was refused", value, way)
		}
		acked.Delete(value)
	}
	acked.Range(func(value, way any) bool {
		t.Errorf("%s of way %d: got = no row, want one: it was acknowledged", value, way)
		return true
	})
}

//nolint:rowserrcheck,sqlclosecheck // there are no rows
func TestRefusedStatementsAreRefusedEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)")
		for _, q := range []string{
			"BEGIN", "commit", "End", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO segno_user", "RELEASE segno_user",
			"ATTACH ':memory:' AS m", "DETACH main", "PRAGMA synchronous = OFF", "VACUUM", "VACUUM INTO 'x'",
			"-- nothing\nCOMMIT", "/* ; */ ROLLBACK", ";;\n\t COMMIT", "SELECT 1; COMMIT", "SELECT ';' ; PRAGMA synchronous",
			"\ufeffCOMMIT", "SELECT 1;\ufeff\ufeff COMMIT", "SELECT $a('); COMMIT; SELECT $a(')",
		} {
			err := s.write(func(tx *Tx) error {
				if _, err := tx.Exec("INSERT INTO t VALUES ('kept')"); err != nil {
					return err
				}
				_, exec := tx.Exec(q, sql.Named("a(')", 1))
				rows, query := tx.Query(q)
				if query == nil {
					query = rows.Err()
				}
				var x any
				row := tx.QueryRow(q).Scan(&x)
				for how, err := range map[string]error{"Exec": exec, "Query": query, "QueryRow": row} {
					if !errors.Is(err, ErrTx) || !strings.Contains(err.Error(), "shared") {
						t.Errorf("%s(%q): got = %v, want %v", how, q, err, ErrTx)
					}
				}
				return nil // a refusal ends nothing
			})
			if err != nil {
				t.Errorf("%q: got = %v, want the rest of the function committed", q, err)
			}
		}
		if got := one(t, s.DB(), "SELECT count(*) FROM t"); got != "21" {
			t.Errorf("rows: got = %s, want 21", got)
		}
	})
}

//nolint:rowserrcheck,sqlclosecheck // rows are left open on purpose
func TestWhatAFunctionLeavesOpenIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)", "INSERT INTO t VALUES (1), (2), (3)")
		for name, leave := range map[string]func(tx *Tx) error{
			"rows not read":     func(tx *Tx) error { _, err := tx.Query("SELECT x FROM t"); return err },
			"rows half read":    func(tx *Tx) error { rows, err := tx.Query("SELECT x FROM t"); rows.Next(); return err },
			"row not scanned":   func(tx *Tx) error { return tx.QueryRow("SELECT x FROM t").Err() },
			"written rows":      func(tx *Tx) error { _, err := tx.Query("UPDATE t SET x = x + 1 RETURNING x"); return err },
			"a written row":     func(tx *Tx) error { return tx.QueryRow("UPDATE t SET x = x + 1 RETURNING x").Err() },
			"rows and a panic":  func(tx *Tx) error { _, _ = tx.Query("SELECT x FROM t"); panic("boom") },
			"rows and an error": func(tx *Tx) error { _, _ = tx.Query("SELECT x FROM t"); return errors.New("no") },
		} {
			for range 20 {
				err := s.write(leave)
				if want := strings.HasPrefix(name, "rows and"); (err != nil) != want {
					t.Fatalf("%s: got = %v, want an error: %v", name, err, want)
				}
			}
			// What is still open would lock the table.
			must(t, s, "DROP TABLE t", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1), (2), (3)")
		}
	})
}

// The effect of a row that was read late or not at all is committed all the same.
func TestRowsMayBeReadInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)", "INSERT INTO t VALUES (1), (2), (3)")
		var sum, first, last int
		err := s.write(func(tx *Tx) error {
			rows, err := tx.Query("SELECT x FROM t ORDER BY x")
			if err != nil {
				return err
			}
			defer rows.Close()
			head, tail := tx.QueryRow("SELECT min(x) FROM t"), tx.QueryRow("SELECT max(x) FROM t")
			for rows.Next() {
				var x int
				if err := rows.Scan(&x); err != nil {
					return err
				}
				if _, err := tx.Exec("INSERT INTO t VALUES (?)", 10*x); err != nil {
					return err
				}
				sum += x
				if x > 3 {
					break
				}
			}
			return errors.Join(rows.Err(), tail.Scan(&last), head.Scan(&first), tx.QueryRow("SELECT 1 WHERE 0").Scan(new(int)))
		})
		says(t, err, sql.ErrNoRows)
		if first != 1 || last != 3 || sum < 6 {
			t.Errorf("read: got = %d, %d and %d in all, want 1, 3 and at least 6", first, last, sum)
		}
	})
}

//nolint:rowserrcheck,sqlclosecheck // there are no rows
func TestTxIsOverWithItsFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)")
		var leaked *Tx
		use := func() error {
			_, exec := leaked.Exec("INSERT INTO t VALUES ('leaked')")
			_, query := leaked.Query("SELECT 1")
			return errors.Join(exec, query, leaked.QueryRow("SELECT 1").Scan(new(int)), leaked.Usable())
		}
		leak := func() error { return s.write(func(tx *Tx) error { leaked = tx; return nil }) }
		if err := leak(); err != nil {
			t.Fatal(err)
		}
		for _, err := range use().(interface{ Unwrap() []error }).Unwrap() {
			says(t, err, ErrTx, "outside its function")
		}
		if got := len(use().(interface{ Unwrap() []error }).Unwrap()); got != 4 {
			t.Errorf("refusals: got = %d, want 4", got)
		}
		if got := one(t, s.DB(), "SELECT count(*) FROM t"); got != "0" {
			t.Errorf("rows: got = %s, want 0", got)
		}
	})
}

func TestCallerMayGiveUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)")
		reason := errors.New("tired of waiting")
		impatient, giveUp := context.WithCancelCause(ctx)
		busy := make(chan struct{})
		answers := make(chan error, 3)
		go func() { answers <- s.Update(ctx, func(*Tx) error { <-busy; return nil }) }()
		synctest.Wait()
		go func() {
			answers <- s.Update(impatient, func(tx *Tx) error {
				return tx.User("", func() error { _, err := tx.Exec("INSERT INTO t VALUES (1)"); return err })
			})
		}()
		synctest.Wait()
		giveUp(reason)
		says(t, <-answers, reason, "outcome is unknown") // while the writer is still busy
		go func() { answers <- insert(s, "t", "2")() }()
		synctest.Wait()
		close(busy)
		if err := errors.Join(<-answers, <-answers); err != nil {
			t.Errorf("neighbours: got = %v, want nil", err)
		}
		if got := one(t, s.DB(), "SELECT count(*) FROM t"); got != "2" {
			t.Errorf("rows: got = %s, want 2: the statement happens all the same", got)
		}
	})
}

func TestErrFencedByTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir() + "/a.db"
		s, err := tryOpen(path)
		if err != nil {
			t.Fatal(err)
		}
		must(t, s, "CREATE TABLE t (x)")
		a := addRun(t, s, "f")
		do(t, path, "UPDATE _segno_owner SET epoch = epoch + 1")
		errs := together(s, insert(s, "t", "1"), func() error { return s.Commit(ctx, transition(a, "b")) }, insert(s, "t", "2"))
		for _, err := range append(errs, insert(s, "t", "3")(), s.Err()) {
			says(t, err, ErrFenced, "epoch")
		}
		select {
		case <-s.Failed:
		default:
			t.Error("Failed: got = open, want closed")
		}
		shut(t, s)
		if got := ask(t, path, "SELECT count(*) FROM t"); got != "0" {
			t.Errorf("rows: got = %s, want 0", got)
		}
		if got := ask(t, path, "SELECT state FROM _segno_run"); got != "a" {
			t.Errorf("state: got = %s, want a", got)
		}
		check(t, path)
	})
}

// pages bounds the size of the file: a disk that is full, without a disk.
func pages(t *testing.T, s *Store, more int) {
	t.Helper()
	n, err := strconv.Atoi(one(t, s.w.conn, "PRAGMA page_count"))
	if err != nil {
		t.Fatal(err)
	}
	one(t, s.w.conn, fmt.Sprintf("PRAGMA max_page_count = %d", n+more))
}

// Nothing is lost and nobody is refused while there is no space: requests wait,
// reads go on, and all is committed when there is.
func TestFullDiskIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := &logs{}
		s := fresh(t, func(c *Config) { c.Logger = logged.logger() })
		must(t, s, "CREATE TABLE t (x)", "CREATE TABLE big (x)")
		a := addRun(t, s, "f")
		pages(t, s, 2)
		calls := 0
		var wg sync.WaitGroup
		var errs [3]error
		wg.Go(func() {
			errs[0] = s.write(func(tx *Tx) error {
				calls++
				_, err := tx.Exec("INSERT INTO big VALUES (zeroblob(100000))")
				if calls == 2 {
					return nil // an error that is ignored is no reason to believe it was written
				}
				return err
			})
		})
		wg.Go(func() { errs[1] = s.Commit(ctx, transition(a, "b")) })
		wg.Go(func() { errs[2] = insert(s, "t", "1")() })
		time.Sleep(10 * time.Second)
		if err := s.Trouble(); primary(err) != 13 {
			t.Errorf("Trouble: got = %v, want SQLite's FULL", err)
		}
		if s.Err() != nil {
			t.Errorf("Err: got = %v, want nil", s.Err())
		}
		if calls < 4 {
			t.Errorf("tries in 10 s: got = %d, want more", calls)
		}
		if got := one(t, s.DB(), "SELECT count(*) FROM big"); got != "0" {
			t.Errorf("rows read meanwhile: got = %s, want 0", got)
		}
		if !strings.Contains(logged.String(), "full") {
			t.Errorf("log: got = %q, want it to name the cause", logged)
		}
		pages(t, s, 1000)
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Error(err)
		}
		if err := s.Trouble(); err != nil {
			t.Errorf("Trouble afterwards: got = %v, want nil", err)
		}
		if got := one(t, s.DB(), "SELECT (SELECT count(*) FROM big) || (SELECT count(*) FROM t) || (SELECT state FROM _segno_run)"); got != "11b" {
			t.Errorf("afterwards: got = %s, want 11b", got)
		}
	})
}

// Closing while the disk is full ends, and says what could not be written.
func TestCloseDoesNotWaitForSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)")
		pages(t, s, 0)
		done := make(chan error)
		go func() { done <- insert(s, "t", strings.Repeat("x", 100000))() }()
		time.Sleep(time.Second)
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		for what, err := range map[string]error{"the request": <-done, "Close": <-closed} {
			if primary(err) != 13 || !errors.Is(err, ErrClosed) || errors.Is(err, ErrStoreFailed) {
				t.Errorf("%s: got = %v, want SQLite's FULL as ErrClosed: nothing of unknown outcome has happened", what, err)
			}
		}
		if err := s.Release(); err != nil {
			t.Error(err)
		}
	})
}

// Another program may hold the write lock for longer than SQLite waits for it.
func TestBusyFileIsWaitedOut(t *testing.T) {
	s := fresh(t)
	must(t, s, "CREATE TABLE t (x)")
	one(t, s.w.conn, "PRAGMA busy_timeout = 10")
	other := raw(t, s.path)
	defer other.Close()
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- insert(s, "t", "1")() }()
	for s.Trouble() == nil { // until it has failed at least once
		runtime.Gosched()
	}
	if _, err := other.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("got = %v, want nil", err)
	}
	if err := s.Trouble(); err != nil {
		t.Errorf("Trouble afterwards: got = %v, want nil", err)
	}
}

func TestErrStoreFailedByTheGate(t *testing.T) {
	for _, happens := range []bool{true, false} {
		t.Run(fmt.Sprint("commit happens: ", happens), func(t *testing.T) {
			errDisk := errors.New("disk I/O error")
			dead := false
			s, err := tryOpen(t.TempDir()+"/a.db", func(c *Config) {
				c.Gate = func(commit func() error) error {
					if !dead {
						return commit()
					}
					if happens {
						_ = commit()
					}
					return errDisk
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			must(t, s, "CREATE TABLE t (x)")
			dead = true
			says(t, insert(s, "t", "1")(), errDisk)
			says(t, s.Err(), ErrStoreFailed, "disk I/O error")
			dead = false
			says(t, insert(s, "t", "2")(), ErrStoreFailed, "disk I/O error")
			says(t, s.Save(ctx, &engine.Head{}, map[string][]byte{"k": nil}, nil), ErrStoreFailed)
			shut(t, s)
			again := open(t, s.path)
			if got, want := one(t, again.DB(), "SELECT count(*) FROM t"), map[bool]string{true: "1", false: "0"}[happens]; got != want {
				t.Errorf("rows after opening again: got = %s, want %s", got, want)
			}
			must(t, again, "INSERT INTO t VALUES ('3')")
		})
	}
}

// A store that has failed writes nothing more, not even what was queued before.
func TestQueueDiesWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := tryOpen(t.TempDir() + "/a.db")
		if err != nil {
			t.Fatal(err)
		}
		must(t, s, "CREATE TABLE t (x)")
		errs := together(s,
			insert(s, "t", "queued"),
			func() error { s.Fail(fmt.Errorf("%w: of a sudden", ErrFenced)); return nil },
		)
		says(t, errs[0], ErrFenced, "of a sudden")
		shut(t, s)
		if got := ask(t, s.path, "SELECT count(*) FROM t"); got != "0" {
			t.Errorf("rows: got = %s, want 0", got)
		}
	})
}

func TestCloseCommitsWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t)
		must(t, s, "CREATE TABLE t (x)")
		errs := together(s, insert(s, "t", "1"), func() error { go shut(t, s); return nil }, insert(s, "t", "2"))
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		says(t, insert(s, "t", "3")(), ErrClosed)
		if got := ask(t, s.path, "SELECT count(*) FROM t"); got != "2" {
			t.Errorf("rows: got = %s, want 2", got)
		}
	})
}

func TestHungFunctionIsLoggedWithStacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := &logs{}
		s := fresh(t, func(c *Config) { c.Logger = logged.logger() })
		if err := s.write(func(*Tx) error { time.Sleep(hungUser - time.Millisecond); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := logged.String(); !strings.Contains(got, "slow") || strings.Contains(got, "goroutine") {
			t.Errorf("after %v: got = %q, want a warning without stacks", hungUser-time.Millisecond, got)
		}
		if err := s.write(func(*Tx) error { time.Sleep(hungUser + time.Millisecond); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := logged.String(); !strings.Contains(got, "does not return") || !strings.Contains(got, "TestHungFunctionIsLoggedWithStacks") {
			t.Errorf("after %v: got = %q, want the stack of the function", hungUser+time.Millisecond, got)
		}
	})
}
