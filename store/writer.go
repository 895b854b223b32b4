package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/segnodev/segno/engine"
)

const (
	maxBatch = 500                     // requests per commit: bounds the latency of the last
	minPause = 50 * time.Millisecond   // after a commit that did not fit on the disk
	maxPause = 2 * time.Second         // between such tries
	slowUser = 50 * time.Millisecond   // a joined function this slow is logged
	hungUser = 3 * time.Second         // and this slow with the stacks of all goroutines
	idlePage = 4096 + 24               // a WAL frame
	growStep = 256 * idlePage          // how much of the WAL is pre-grown at a time
	growTo   = 4200*idlePage + growPad // a little more than checkpoints let it become
	growPad  = 32
)

// background is the context of every statement of the writer: a caller may give
// up waiting, never the statement, which others share.
var background = context.Background()

// A request is one piece of work for the writer.
type request struct {
	apply func(*Tx) error
	plain bool // it hardly half-fails, so it takes no savepoint
	done  chan error
	err   error
	after []func() // called after the commit

	orElse []func() // called instead, if there is none
}

// drop takes back what a request that is not committed has arranged.
func (q *request) drop() {
	for _, fn := range q.orElse {
		fn()
	}
	q.after, q.orElse = q.after[:0], q.orElse[:0]
}

// writer owns the one connection that writes, and everything below it is
// touched by its goroutine only.
type writer struct {
	conn   *sql.Conn
	path   string
	log    *slog.Logger
	settle Settle
	epoch  int64

	begin, commitTx, rollback                 *statement
	savepoint, release, undo                  *statement
	advance, complete, replace, insert, letGo *statement
	putMemo, dropMemos                        *statement
	changes                                   map[string]*statement // all of them, and those prepared when they were needed
	queries                                   map[string]*sql.Stmt
	nextRun, nextEntry, nextFlow              int64
	flows                                     map[int64]*Flow
	byID                                      map[string]*Flow
	closing                                   <-chan struct{}
	failed                                    func() error // why nothing may be written any more
	degraded                                  func(error)  // told of trouble, and of its end with nil
	troubled                                  bool         // it has been told
	smallWAL                                  bool
	checkpointAt                              int          // pages of the log from which it is copied
	unsynced                                  error        // why nothing may be copied any more
	inUser                                    atomic.Int64 // the writer's goroutine while it is in a function of the user's
	images                                    []image      // of the last batch, to be used again, as the next two
	entries                                   []engine.Entry
	args                                      []any
	commits                                   atomic.Uint64
	long                                      longRuns
}

// prepare makes the writer's statements, once.
func (w *writer) prepare() error {
	for _, p := range []struct {
		stmt **statement
		sql  string
	}{
		{&w.begin, "BEGIN IMMEDIATE"}, {&w.commitTx, "COMMIT"}, {&w.rollback, "ROLLBACK"},
		{&w.savepoint, "SAVEPOINT segno_request"}, {&w.release, "RELEASE segno_request"}, {&w.undo, "ROLLBACK TO segno_request"},
		{&w.advance, advanceSQL}, {&w.replace, replaceSQL}, {&w.insert, insertSQL}, {&w.complete, completeSQL}, {&w.letGo, letGoSQL},
		{&w.putMemo, putMemoSQL}, {&w.dropMemos, dropMemosSQL},
	} {
		stmt, err := w.statement(p.sql)
		if err != nil {
			return fmt.Errorf("preparing %q: %w", p.sql, err)
		}
		*p.stmt = stmt
	}
	return nil
}

// close gives the statements back before the connection: an open statement
// would keep SQLite from checkpointing.
func (w *writer) close() error {
	var errs []error
	for _, s := range w.changes {
		errs = append(errs, s.close())
	}
	for _, q := range w.queries {
		errs = append(errs, q.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// loop serves requests until the queue is closed for good or the file cannot
// be trusted any more. There is no timer: what is queued while one commit is in
// the disk makes up the next.
func (w *writer) loop(queue <-chan *request) error {
	grow := w.grower()
	for {
		batch := collect(queue, w.closing, grow)
		if len(batch) == 0 {
			return nil
		}
		if err := w.serve(batch); err != nil {
			return err
		}
		if w.checkpoint(); w.unsynced != nil {
			return w.unsynced
		}
	}
}

// collect waits for a request, using the idle moment, and takes along whatever
// else is queued. It returns nothing when the writer is closing and idle.
func collect(queue <-chan *request, closing <-chan struct{}, idle func() bool) []*request {
	var batch []*request
	for len(batch) == 0 {
		select {
		case q := <-queue:
			batch = append(batch, q)
			continue
		default:
		}
		if idle() {
			continue
		}
		select {
		case q := <-queue:
			batch = append(batch, q)
		case <-closing:
			select {
			case q := <-queue:
				batch = append(batch, q)
			default:
				return nil
			}
		}
	}
	for len(batch) < maxBatch {
		select {
		case q := <-queue:
			batch = append(batch, q)
		default:
			return batch
		}
	}
	return batch
}

// serve commits a batch and answers it. Trouble that leaves nothing committed
// is waited out; the error it returns is the end of the writer, and answers
// whoever was not answered yet.
func (w *writer) serve(batch []*request) error {
	careful, pause := false, minPause
	for len(batch) > 0 {
		rest, err := w.try(batch, careful)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errAgain): // some were answered; the rest runs again
			batch, careful = rest, true
		case transient(err) && w.wait(pause, err):
			pause = min(2*pause, maxPause)
		case transient(err): // closing: nothing was committed, and nothing will be
			err = fmt.Errorf("%w before a commit could be made: %w", ErrClosed, err)
			answer(batch, err)
			return err
		default:
			if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrStoreFailed) {
				err = fmt.Errorf("%w: %w", ErrStoreFailed, err)
			}
			answer(batch, err)
			return err
		}
	}
	return nil
}

// wait reports the trouble and pauses; false: the writer is closing.
func (w *writer) wait(d time.Duration, err error) bool {
	w.troubled = true
	w.degraded(err)
	w.log.Warn("segno: commit put off, nothing is lost", "error", err, "pause", d)
	if primary(err) == lib.SQLITE_FULL { // perhaps it is the WAL that fills the disk: what is in the database can be overwritten
		_, _ = w.copyLog("PASSIVE")
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.closing:
		return false
	}
}

// errAgain says that the batch was rolled back for one request's sake.
var errAgain = errors.New("segno: batch to be repeated")

// try runs a batch in one transaction and answers it after the commit.
func (w *writer) try(batch []*request, careful bool) (rest []*request, err error) {
	tx := &Tx{w: w, images: w.images[:0], entries: w.entries[:0]}
	defer func() { w.images, w.entries = tx.images, tx.entries }()
	if err := w.open(tx); err != nil {
		w.abandon(tx, nil)
		return batch, err
	}
	for i, q := range batch {
		q.err = tx.serve(q, careful || !q.plain)
		if tx.broken == nil {
			continue
		}
		w.abandon(tx, batch[:i+1])
		if tx.lost == nil {
			return batch, tx.broken
		}
		q.done <- q.err
		return append(append(rest, batch[:i]...), batch[i+1:]...), errAgain
	}
	if err := tx.flush(); err != nil {
		w.abandon(tx, batch)
		return batch, err
	}
	if err := w.commit(); err != nil {
		w.abandon(tx, batch)
		return batch, err
	}
	if w.troubled { // known to be over before anybody is answered
		w.troubled = false
		w.degraded(nil)
	}
	for _, q := range batch {
		for _, fn := range q.after {
			fn()
		}
		q.done <- q.err
	}
	return nil, nil
}

// commit makes the batch durable, unless the store has failed meanwhile.
func (w *writer) commit() error {
	if err := w.failed(); err != nil {
		return err
	}
	_, err := w.commitTx.exec()
	w.commits.Add(1)
	return err
}

// open begins the transaction, and makes sure that the file is still ours.
func (w *writer) open(tx *Tx) error {
	if err := w.failed(); err != nil {
		return err
	}
	if w.unsynced != nil {
		return w.unsynced
	}
	if _, err := w.begin.exec(); err != nil {
		return err
	}
	var epoch int64
	if err := tx.row("SELECT epoch FROM _segno_owner").Scan(&epoch); err != nil {
		return err
	}
	if epoch != w.epoch {
		return fmt.Errorf("%w: the file's epoch is %d, ours %d", ErrFenced, epoch, w.epoch)
	}
	return nil
}

// abandon rolls back what is left of the transaction, in the file and in memory.
func (w *writer) abandon(tx *Tx, served []*request) {
	_, _ = w.rollback.exec() // there may be none any more
	tx.restore(mark{})
	for _, q := range served {
		q.drop()
	}
}

func answer(batch []*request, err error) {
	for _, q := range batch {
		q.done <- err
	}
}

func marks(n int) string {
	b := make([]byte, 0, 2*n)
	for range n {
		b = append(b, '?', ',')
	}
	return string(b[:len(b)-1])
}
