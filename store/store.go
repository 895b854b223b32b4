package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/segnodev/segno/engine"
)

// Settle is called on the writer when a run ends or is stuck, to bring its flow's state up
// to date in the same commit. It may be called again for the same end.
type Settle func(tx *Tx, f *Flow, h *engine.Head)

// Config says how to open a store.
type Config struct {
	Path     string
	Standby  bool // wait for the lock
	SmallWAL bool // do not pre-grow the WAL
	Logger   *slog.Logger
	Settle   Settle
	Now      func() time.Time
	// MaxVisits is how many visits of an open run are kept in its history; 0: all.
	MaxVisits int
	// Gate, if set, is called with every commit to be made; tests kill there.
	// An error of its own, in place of the commit's, is the store's failure.
	Gate func(commit func() error) error
	// Pragmas are made on the writer's connection once its settings were
	// checked; tests weaken them there, to see what that loses.
	Pragmas []string
}

// A Store is an open database with its one writer.
type Store struct {
	Reader
	gate  func(func() error) error
	lock  *lock
	db    *sql.DB
	w     *writer
	users *sqlx.DB

	queue   chan *request
	closing chan struct{}
	done    chan struct{} // closed when the writer is gone

	current   bool  // the file had the newest schema when it was opened
	unwritten error // why the writer could not write all, once it is gone
	now       func() time.Time
	once      sync.Once
	failure   atomic.Pointer[error]
	trouble   atomic.Pointer[error]
	// Failed is closed when the file cannot be trusted or is not ours any more.
	Failed chan struct{}
	// Adopted says that the file held tables of the user's before segno came.
	Adopted bool
}

// Open takes the lock, checks the file, raises the epoch, migrates the schema
// and starts the writer.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	path, err := resolve(cfg.Path)
	if err != nil {
		return nil, opening(cfg.Path, err)
	}
	if fs := networkFS(filepath.Dir(path)); fs != "" {
		return nil, fmt.Errorf("%w: %s lies on %s, where locks cannot be trusted; use a local disk", ErrForeign, path, fs)
	}
	l, err := acquire(ctx, path, cfg.Standby)
	if errors.Is(err, errBusyLock) {
		return nil, lockedBy(path)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{
		Reader: Reader{path: path}, gate: cfg.Gate, lock: l, queue: make(chan *request, 2*maxBatch),
		now: cfg.Now, closing: make(chan struct{}), done: make(chan struct{}), Failed: make(chan struct{}),
	}
	if err := s.open(ctx, cfg); err != nil {
		return nil, errors.Join(opening(path, err), s.abandonOpen())
	}
	return s, nil
}

// Opening names the error of something that had to be read before the work
// could begin.
func (s *Store) Opening(err error) error {
	if fatal(err) && !errors.Is(err, ErrStoreFailed) && !errors.Is(err, ErrFenced) {
		return opening(s.path, err)
	}
	return err
}

func (s *Store) open(ctx context.Context, cfg Config) error {
	fresh, err := create(s.path)
	if err != nil {
		return err
	}
	if !fresh {
		if fresh, err = s.vet(ctx); err != nil {
			return err
		}
	}
	if s.db, err = sql.Open("sqlite", writerDSN(s.path, fresh)); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(1)
	if err := s.prepareFile(ctx, fresh); err != nil {
		return err
	}
	if s.reader, err = openReader(s.path, 4); err != nil {
		return err
	}
	if s.users, err = openReader(s.path, 4); err != nil {
		return err
	}
	return s.startWriter(ctx, cfg)
}

// vet refuses a foreign or newer file before anything in it is touched.
// It reports whether there is nothing in the file: whoever made it, an earlier
// Start most likely, was killed before it came to that.
func (s *Store) vet(ctx context.Context) (empty bool, err error) {
	latest, err := latestSchema()
	if err != nil {
		return false, err
	}
	id, err := identify(ctx, s.path)
	if err != nil {
		return false, err
	}
	empty = id.app == 0 && id.empty
	s.Adopted = id.app == 0 && !empty
	s.current = id.schema == latest
	return empty, vet(s.path, id, latest)
}

// prepareFile checks the settings, fences an older owner, and migrates.
func (s *Store) prepareFile(ctx context.Context, fresh bool) error {
	if err := settings(ctx, s.db); err != nil {
		return err
	}
	if fresh {
		if _, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
			return err
		}
	}
	host, _ := os.Hostname()
	now := s.now().UnixMicro()
	raise := func() (int64, error) {
		res, err := s.db.ExecContext(ctx, "UPDATE _segno_owner SET epoch = epoch + 1, pid = ?, host = ?, since = ?", os.Getpid(), host, now)
		if err != nil {
			return 0, err
		}
		return res.RowsAffected()
	}
	var known int
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = '_segno_owner'").Scan(&known); err != nil {
		return err
	}
	var raised int64
	if known > 0 {
		var err error
		if raised, err = raise(); err != nil {
			return err
		}
	}
	if s.current && raised == 1 { // nothing to migrate: a restart need not wait for goose to find that out
		return s.lock.watch()
	}
	if err := migrate(ctx, s.db); err != nil {
		return err
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO _segno_owner (one, epoch, pid, host, since, clean) VALUES (1, 1, ?, ?, ?, 1)
ON CONFLICT DO NOTHING`, os.Getpid(), host, now)
	if err != nil {
		return err
	}
	return s.lock.watch()
}

// startWriter pins the writing connection, loads what the writer keeps in
// memory and starts its goroutine.
func (s *Store) startWriter(ctx context.Context, cfg Config) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	for _, p := range cfg.Pragmas {
		if _, err := conn.ExecContext(ctx, "PRAGMA "+p); err != nil {
			return err
		}
	}
	s.w = &writer{
		conn: conn, path: s.path, log: cfg.Logger, settle: cfg.Settle, smallWAL: cfg.SmallWAL,
		flows: map[int64]*Flow{}, byID: map[string]*Flow{}, closing: s.closing,
		long:   longRuns{beyond: cfg.MaxVisits},
		failed: s.failed, degraded: func(err error) { s.setTrouble(err) },
	}
	if err := s.w.takeCheckpoints(); err != nil {
		return err
	}
	if err := s.w.prepare(); err != nil {
		return err
	}
	if err := s.w.load(); err != nil {
		return err
	}
	go func() {
		defer close(s.done)
		err := s.w.loop(s.queue)
		if err != nil && !errors.Is(err, ErrClosed) {
			s.Fail(err)
		}
		s.unwritten = err
	}()
	return nil
}

// load reads what the writer keeps in memory.
func (w *writer) load() error {
	err := w.conn.QueryRowContext(background, `SELECT epoch,
	max(run_high, (SELECT coalesce(max(run), 0) FROM _segno_run)) + 1,
	max(journal_high, (SELECT coalesce(max(id), 0) FROM _segno_journal)) + 1,
	(SELECT coalesce(max(flow), 0) + 1 FROM _segno_flow) FROM _segno_owner`).Scan(&w.epoch, &w.nextRun, &w.nextEntry, &w.nextFlow)
	if err != nil {
		return err
	}
	flows, err := scanFlows(w.conn.QueryContext(background, "SELECT flow, "+flowColumns+" FROM _segno_flow"))
	for i := range flows {
		f := &flows[i]
		w.flows[f.num], w.byID[f.ID] = f, f
	}
	return err
}

// Commit makes a change of the engine's durable: see engine.Journal.
func (s *Store) Commit(ctx context.Context, c *engine.Change) error {
	return s.submit(ctx, &request{
		plain: len(c.OnCommit) == 0,
		apply: func(tx *Tx) error { return tx.commit(c) },
	})
}

// Update runs fn in the writer's transaction, as one request that stands or
// falls as a whole. fn may be called more than once.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.submit(ctx, &request{apply: fn})
}

// UpdatePlain is Update without the cost of a savepoint, for a function that
// fails, if at all, before its first write.
func (s *Store) UpdatePlain(ctx context.Context, fn func(*Tx) error) error {
	return s.submit(ctx, &request{apply: fn, plain: true})
}

// submit hands a request to the writer and waits for its commit. If ctx ends
// first the outcome is unknown to the caller.
func (s *Store) submit(ctx context.Context, q *request) error {
	if s.gate == nil {
		return s.send(ctx, q)
	}
	var own error
	err := s.gate(func() error {
		own = s.send(ctx, q)
		return own
	})
	if err != own {
		s.Fail(err)
	}
	return err
}

func (s *Store) send(ctx context.Context, q *request) error {
	if err := s.failed(); err != nil {
		return err
	}
	if id := s.w.inUser.Load(); id != 0 && id == goroutine() {
		return fmt.Errorf("%w: a function inside a commit cannot wait for another commit; use its Tx", ErrTx)
	}
	q.done = make(chan error, 1)
	select {
	case s.queue <- q:
	case <-s.done:
		return s.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-q.done:
		return err
	case <-s.done:
	case <-ctx.Done():
		return fmt.Errorf("the outcome is unknown: %w", context.Cause(ctx))
	}
	select {
	case err := <-q.done:
		return err
	default:
		return s.gone()
	}
}

// gone says why there is no writer any more.
func (s *Store) gone() error {
	if err := s.failed(); err != nil {
		return err
	}
	return ErrClosed
}

func (s *Store) failed() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Fail is the end of the store's work: nothing is written any more, and every
// call answers with the reason.
func (s *Store) Fail(err error) {
	if !errors.Is(err, ErrStoreFailed) && !errors.Is(err, ErrFenced) {
		err = fmt.Errorf("%w: %w", ErrStoreFailed, err)
	}
	if s.failure.CompareAndSwap(nil, &err) {
		close(s.Failed)
	}
}

// Err returns why the store failed, nil if it has not.
func (s *Store) Err() error { return s.failed() }

func (s *Store) setTrouble(err error) {
	if err == nil {
		s.trouble.Store(nil)
		return
	}
	s.trouble.Store(&err)
}

// Trouble returns what keeps the writer from committing at present, nil if nothing does.
func (s *Store) Trouble() error {
	if p := s.trouble.Load(); p != nil {
		return *p
	}
	return nil
}

// Check fails the store if the lock or the file was replaced or another owner
// has raised the epoch.
func (s *Store) Check(ctx context.Context) error {
	err := s.lock.check()
	if err == nil {
		var epoch int64
		if err = s.queryRow(ctx, "SELECT epoch FROM _segno_owner").Scan(&epoch); err == nil && epoch != s.w.epoch {
			err = fmt.Errorf("%w: the file's epoch is %d, ours %d", ErrFenced, epoch, s.w.epoch)
		}
	}
	if errors.Is(err, ErrFenced) {
		s.Fail(err)
	}
	return err
}

// DB returns the read-only pool that is the user's.
func (s *Store) DB() *sql.DB { return s.users.DB }

// Backup writes a consistent copy of the file to path, which must not exist.
func (s *Store) Backup(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("%w; give the name of a new file", fs.ErrExist)
	}
	part := fmt.Sprintf("%s.%x.part", path, time.Now().UnixNano())
	_, err := s.reader.ExecContext(ctx, "VACUUM INTO ?", part)
	if err == nil {
		err = syncFile(part)
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part)
	}
	return err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(os.Chmod(path, 0o600), f.Sync(), f.Close())
}

// Close lets the writer finish what is queued and closes statements, readers
// and writer, in this order. The lock stays until Release.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.closing)
		<-s.done
		if s.failed() == nil {
			s.w.keepMarks()
		}
		if errors.Is(s.unwritten, ErrClosed) {
			err = s.unwritten
		}
		err = errors.Join(err, s.users.Close(), s.Reader.Close(), s.w.close(), s.db.Close())
	})
	return err
}

// Release gives the lock back, after Close.
func (s *Store) Release() error { return s.lock.release() }

// abandonOpen closes what a failed Open had opened.
func (s *Store) abandonOpen() error {
	for _, db := range []*sqlx.DB{s.reader, s.users} {
		if db != nil {
			_ = db.Close()
		}
	}
	if s.w != nil {
		_ = s.w.close()
	}
	if s.db != nil {
		_ = s.db.Close()
	}
	return s.lock.release()
}
