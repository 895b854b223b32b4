package store

import (
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/segnodev/segno/engine"
)

// A Tx is one request's view of the writer's transaction. It is valid only
// inside the function it is given to, which may be called more than once: a
// batch is repeated when a neighbour ends it or the disk was full.
type Tx struct {
	w      *writer
	q      *request
	images []image
	// entries of the journal that are not yet written.
	entries []engine.Entry
	broken  error // the whole batch must be rolled back
	lost    error // why, if this request ended the transaction
	wrote   bool  // the request in progress has changed something
	opened  *userState
}

// image is what a flow was before a request touched it.
type image struct {
	flow *Flow
	was  Flow
	born bool
}

// userState is what the user's function in progress has opened.
type userState struct {
	rows []*sql.Rows
	row  []*sql.Row
}

// serve runs one request, in a savepoint if it might half-fail.
func (tx *Tx) serve(q *request, careful bool) error {
	tx.q, q.after, q.orElse = q, q.after[:0], q.orElse[:0]
	at := mark{len(tx.images), len(tx.entries)}
	if !careful {
		return tx.servePlain(q, at)
	}
	err := tx.flushEntries() // of others: the savepoint must not hold them
	if err == nil {
		_, err = tx.exec(tx.w.savepoint)
	}
	if err != nil {
		tx.broken = err
		return err
	}
	at.entries = 0
	err = q.apply(tx)
	if tx.broken != nil {
		return err
	}
	if err != nil {
		tx.restore(at)
		q.drop()
		if _, undo := tx.exec(tx.w.undo); undo != nil {
			return tx.lose(err)
		}
	}
	if _, gone := tx.exec(tx.w.release); gone != nil {
		return tx.lose(gone)
	}
	return err
}

// servePlain runs a request without a savepoint. If it fails with half of its
// writes done, the batch is repeated with savepoints.
func (tx *Tx) servePlain(q *request, at mark) error {
	tx.wrote = false
	err := q.apply(tx)
	switch {
	case err == nil || tx.broken != nil:
		return err
	case tx.wrote:
		tx.broken = errAgain
	default:
		tx.restore(at)
		q.drop()
	}
	return err
}

// lose records that the transaction ended under the request.
func (tx *Tx) lose(err error) error {
	tx.broken = errAgain
	tx.lost = fmt.Errorf("%w: the function ended the shared transaction: %w", ErrTx, err)
	return tx.lost
}

// exec runs a prepared statement and returns the number of rows it changed.
func (tx *Tx) exec(stmt *statement, args ...any) (int64, error) {
	n, err := stmt.exec(args...)
	tx.wrote = tx.wrote || n > 0
	return n, tx.note(err)
}

// note remembers an error after which nothing of the batch can stand.
func (tx *Tx) note(err error) error {
	if err != nil && tx.broken == nil && (transient(err) || fatal(err)) {
		tx.broken = err
	}
	return err
}

// After has fn called once the request is committed, on the writer's goroutine.
func (tx *Tx) After(fn func()) { tx.q.after = append(tx.q.after, fn) }

// Else has fn called if the request is not committed after all: it failed, or
// its batch is repeated.
func (tx *Tx) Else(fn func()) { tx.q.orElse = append(tx.q.orElse, fn) }

// Flow returns a flow to read and change, nil if there is none of that id.
// What the caller changes is written with the batch.
func (tx *Tx) Flow(id string) *Flow {
	f := tx.w.byID[id]
	if f != nil {
		tx.images = append(tx.images, image{flow: f, was: *f})
		f.dirty = true
	}
	return f
}

// Flows returns the ids of all flows.
func (tx *Tx) Flows() []string {
	ids := make([]string, 0, len(tx.w.byID))
	for id := range tx.w.byID {
		ids = append(ids, id)
	}
	return ids
}

// AddFlow adds a flow that is new to the file.
func (tx *Tx) AddFlow(f Flow) error {
	f.num, f.dirty = tx.w.nextFlow, true
	tx.w.nextFlow++
	p := &f
	tx.w.flows[f.num], tx.w.byID[f.ID] = p, p
	tx.images = append(tx.images, image{flow: p, was: f, born: true})
	// Runs and ledger rows of the same batch refer to it.
	_, err := tx.do(addFlowSQL, append([]any{p.num}, p.values()...)...)
	return err
}

// mark is how much a batch had collected at some moment.
type mark struct{ images, entries int }

// restore takes back what was done to flows, and what was added to the journal,
// since the mark.
func (tx *Tx) restore(at mark) {
	tx.entries = tx.entries[:min(at.entries, len(tx.entries))] // fewer: they were written meanwhile
	for i := len(tx.images) - 1; i >= at.images; i-- {
		m := tx.images[i]
		*m.flow = m.was
		m.flow.dirty = !m.born
		if m.born {
			delete(tx.w.flows, m.was.num)
			delete(tx.w.byID, m.was.ID)
		}
	}
	tx.images = tx.images[:at.images]
}

// flush writes what the batch has collected: its entries, and every flow it has
// changed, once.
func (tx *Tx) flush() error {
	if err := tx.flushEntries(); err != nil {
		return err
	}
	for _, m := range tx.images {
		if !m.flow.dirty {
			continue
		}
		if m.was.dirty = true; *m.flow == m.was { // its first image: nothing has changed since
			m.flow.dirty = false
			continue
		}
		query, args := m.flow.update(&m.was)
		if _, err := tx.do(query, args...); err != nil {
			return err
		}
		m.flow.dirty = false
	}
	return nil
}

// Exec runs a statement of the user's.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	if err := tx.admit(query); err != nil {
		return nil, err
	}
	res, err := tx.w.conn.ExecContext(background, query, args...)
	return res, tx.probe(err)
}

// Query runs a query of the user's. Rows left open are closed when the function returns.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	if err := tx.admit(query); err != nil {
		return nil, err
	}
	rows, err := tx.w.conn.QueryContext(background, query, args...)
	if err != nil {
		return nil, tx.probe(err)
	}
	tx.opened.rows = append(tx.opened.rows, rows)
	return rows, rows.Err()
}

// QueryRow runs a query of the user's for one row.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	if err := tx.admit(query); err != nil {
		return tx.Refuse(err)
	}
	row := tx.w.conn.QueryRowContext(background, query, args...)
	if err := row.Err(); err != nil {
		_ = tx.probe(err)
		return row
	}
	tx.opened.row = append(tx.opened.row, row)
	return row
}

// Refuse returns a row that answers with the given error.
func (tx *Tx) Refuse(err error) *sql.Row {
	return tx.w.conn.QueryRowContext(refusal{err}, "SELECT 1")
}

// A refusal is a context that has ended for a reason of ours: the one way to
// an sql.Row that answers with it.
type refusal struct{ err error }

func (refusal) Deadline() (time.Time, bool) { return time.Time{}, false }
func (refusal) Value(any) any               { return nil }
func (r refusal) Err() error                { return r.err }

func (refusal) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// admit refuses what would end or escape the shared transaction.
func (tx *Tx) admit(query string) error {
	switch {
	case tx.opened == nil:
		return fmt.Errorf("%w: the Tx was used outside its function", ErrTx)
	case tx.broken != nil:
		return fmt.Errorf("%w: the transaction is over: %w", ErrTx, tx.broken)
	}
	return allowed(query)
}

// probe finds out, after a failed statement, whether it ended the transaction
// (ON CONFLICT ROLLBACK does): then nothing more may run, it would commit by itself.
func (tx *Tx) probe(err error) error {
	switch primary(err) {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_INTERRUPT, lib.SQLITE_NOMEM: // its own doing: the write lock is ours
	default:
		_ = tx.note(err)
	}
	if err == nil || tx.broken != nil {
		return err
	}
	if _, gone := tx.w.conn.ExecContext(background, "RELEASE segno_user"); gone != nil {
		return tx.lose(err)
	}
	_, again := tx.w.conn.ExecContext(background, "SAVEPOINT segno_user")
	_ = tx.note(again)
	return err
}

// User calls a function of the user's, whose panic is an error, inside a
// savepoint by which it is seen whether the transaction still stands. What is
// logged of it has the given attributes.
func (tx *Tx) User(what string, fn func() error, attrs ...any) error {
	if err := tx.flushEntries(); err != nil { // the function may look at them
		return err
	}
	if _, err := tx.do("SAVEPOINT segno_user"); err != nil {
		return err
	}
	tx.opened = &userState{}
	start := time.Now()
	hung := time.AfterFunc(hungUser, func() { tx.w.logHung(what, attrs) })
	err := safely(func() error {
		tx.w.inUser.Store(goroutine())
		defer tx.w.inUser.Store(0)
		return fn()
	})
	hung.Stop()
	if d := time.Since(start); d > slowUser {
		tx.w.log.Warn("segno: a function inside a commit is slow; every run waits for it", append([]any{"of", what, "took", d}, attrs...)...)
	}
	tx.closeUser()
	if tx.broken != nil {
		if err == nil {
			err = tx.lost // the function has ignored it
		}
		return err
	}
	if err == nil {
		err = tx.unresolved()
	}
	if _, gone := tx.w.conn.ExecContext(background, "RELEASE segno_user"); gone != nil {
		return tx.lose(gone)
	}
	return err
}

// closeUser closes what the function left open.
func (tx *Tx) closeUser() {
	for _, rows := range tx.opened.rows {
		_ = rows.Close()
	}
	for _, row := range tx.opened.row {
		_ = row.Scan() // closes it
	}
	tx.opened = nil
}

// unresolved fails if a deferred foreign key is violated: at the commit, where
// SQLite would find it, it would fail the whole batch.
func (tx *Tx) unresolved() error {
	violated := 0
	err := tx.w.conn.Raw(func(conn any) (err error) {
		violated, _, err = conn.(sqlite.DBStatus).Status(sqlite.DBStatusDeferredFKs, false)
		return err
	})
	if err == nil && violated != 0 {
		err = errors.New("FOREIGN KEY constraint failed: a deferred one is violated when the function returns")
	}
	return err
}

func (w *writer) logHung(what string, attrs []any) {
	buf := make([]byte, 1<<16)
	w.log.Error("segno: a function inside a commit does not return; nothing is written meanwhile",
		append([]any{"of", what, "stacks", string(buf[:runtime.Stack(buf, true)])}, attrs...)...)
}

// goroutine returns the id of the calling goroutine. It is used for nothing but
// telling a function that runs on the writer from one that does not.
func goroutine() int64 {
	var buf [64]byte
	head := strings.TrimPrefix(string(buf[:runtime.Stack(buf[:], false)]), "goroutine ")
	id, _, _ := strings.Cut(head, " ")
	n, _ := strconv.ParseInt(id, 10, 64)
	return n
}

// safely calls fn in a goroutine of its own, so that neither a panic nor
// runtime.Goexit, which t.Fatal calls, is the end of the writer.
func safely(fn func() error) error {
	err := fmt.Errorf("%w: the function called runtime.Goexit", engine.ErrPanic)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v\n%s", engine.ErrPanic, p, debug.Stack())
			}
		}()
		err = fn()
	}()
	<-done
	return err
}

// Usable reports whether the Tx may be used now.
func (tx *Tx) Usable() error { return tx.admit("") }
