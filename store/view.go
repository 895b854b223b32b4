package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/jmoiron/sqlx"
	"modernc.org/sqlite"
)

// A Reader answers questions about a file. It is the reading half of a Store,
// and all there is of a file that somebody else owns.
type Reader struct {
	path   string
	reader *sqlx.DB
	reads  sync.Map // query text → *sqlx.Stmt
}

// OpenReader opens a file to read it, beside its owner or without one. It takes
// no lock, writes nothing and makes no file: each query opens a connection of
// its own, so that nothing is pinned between two of them.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	real, err := resolve(path)
	if err != nil {
		return nil, missing(path, err)
	}
	if err := readable(real); err != nil {
		return nil, missing(path, err)
	}
	s := &Reader{path: real, reader: sqlx.NewDb(sql.OpenDB(connector(real)), "sqlite")}
	s.reader.SetMaxIdleConns(0)
	if err := s.admit(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// readable returns why a file cannot be read, in better words than SQLite's. It
// does not open it: closing any descriptor of a database gives up the locks
// that this process has on it.
func readable(path string) error {
	st, err := os.Stat(path)
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%w: it is a directory; give the path of the file in it", ErrForeign)
	}
	return err
}

func missing(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s; check the path", ErrNotFound, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user; run as the one who owns it: %w", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// admit refuses a file that this program cannot read.
func (s *Reader) admit(ctx context.Context) error {
	latest, err := latestSchema()
	if err != nil {
		return err
	}
	id, err := identityOf(ctx, s.reader)
	if err != nil {
		return opening(s.path, err)
	}
	switch err := vet(s.path, id, latest); {
	case err != nil:
		return err
	case !id.ours:
		return fmt.Errorf("%w: %s has no tables of segno's; check the path", ErrForeign, s.path)
	case id.schema < latest:
		return fmt.Errorf("%s has schema %d, this program reads %d: start its owner once, built with the same segno as this; it migrates the file",
			s.path, id.schema, latest)
	}
	return nil
}

// connector opens connections to the file it names.
type connector string

// Connect opens the file as it is now. SQLite would make a -wal and a -shm
// beside a file at rest even for a reader, and leave them there. Such a file is
// opened as immutable instead: its bytes change when an owner checkpoints, and
// no owner that starts now comes so far within one query.
func (c connector) Connect(context.Context) (driver.Conn, error) {
	settings := url.Values{"mode": {"ro"}, "_busy_timeout": {"5000"}, "_dqs": {"0"}}
	if c.atRest() {
		settings.Set("immutable", "1")
	}
	return c.Driver().Open(dsn(string(c), settings))
}

// Driver returns SQLite's driver.
func (c connector) Driver() driver.Driver { return &sqlite.Driver{} }

// atRest reports whether all that was committed is in the file itself.
func (c connector) atRest() bool {
	st, err := os.Stat(string(c) + "-wal")
	return errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0
}

// Path returns the absolute path of the file, free of symbolic links.
func (s *Reader) Path() string { return s.path }

// DB returns the pool, for queries of the caller's.
func (s *Reader) DB() *sql.DB { return s.reader.DB }

// Close ends reading: statements first, an open one would keep its connection.
func (s *Reader) Close() (err error) {
	s.reads.Range(func(_, stmt any) bool {
		err = errors.Join(err, stmt.(*sqlx.Stmt).Close())
		return true
	})
	return errors.Join(err, s.reader.Close())
}

// Named gives an error about the state of the file its name.
func (s *Reader) Named(err error) error {
	if fatal(err) {
		return opening(s.path, err)
	}
	return err
}

// An Owner is who writes a file, or wrote it last.
type Owner struct {
	PID   int
	Host  string
	Since time.Time
	Epoch int64 // counts the owners
	Clean bool  // it has stopped by itself
	Alive bool  // it has the lock
}

// Owner returns who writes the file, or wrote it last.
func (s *Reader) Owner(ctx context.Context) (o Owner, err error) {
	row := s.reader.QueryRowContext(ctx, "SELECT pid, host, since, epoch, clean FROM _segno_owner")
	if err := row.Scan(&o.PID, &o.Host, at{&o.Since}, &o.Epoch, &o.Clean); err != nil {
		return o, notFound(err)
	}
	o.Alive, err = held(s.path)
	return o, err
}

// held reports whether somebody has the lock of the database at path. The lock
// is tried shared, and given back at once: an owner that starts in this very
// instant tries again.
func held(path string) (bool, error) {
	l := flock.New(path+".lock", flock.SetFlag(os.O_RDONLY))
	free, err := l.TryRLock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking for an owner: %w", err)
	}
	return !free, l.Unlock()
}
