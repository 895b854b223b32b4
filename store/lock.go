package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a standby tries the lock. The lock vanishes with its
// holder, so this is all the time a takeover costs.
const lockPoll = 25 * time.Millisecond

// A lock is the exclusive right to write a file: an advisory lock of the
// operating system on a file beside it, which is never removed.
type lock struct {
	fl     *flock.Flock
	db     string
	lockID os.FileInfo
	dbID   os.FileInfo
	walID  os.FileInfo
}

// resolve makes path absolute and free of symbolic links, so that one file has
// one lock whatever name it is opened by.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if target, err := os.Readlink(abs); err == nil { // a link to a file yet to be made
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(abs), target)
		}
		return resolve(target)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// acquire takes the lock of the database at path, at once or, as a standby, as
// soon as it is free.
func acquire(ctx context.Context, path string, standby bool) (*lock, error) {
	for {
		l := &lock{fl: flock.New(path+".lock", flock.SetPermissions(0o600)), db: path}
		ok, err := l.take(ctx, standby)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, errBusyLock
		}
		// Somebody may have replaced the lock file between open and lock.
		if same, err := l.pin(); err != nil || same {
			return l, err
		}
		_ = l.fl.Unlock()
	}
}

var errBusyLock = errors.New("lock is taken")

func (l *lock) take(ctx context.Context, standby bool) (bool, error) {
	if !standby {
		ok, err := l.fl.TryLock()
		if err == nil && !ok { // a Reader that looks for an owner has the lock for an instant
			time.Sleep(lockPoll)
			ok, err = l.fl.TryLock()
		}
		return ok, lockError(l.db, err)
	}
	ok, err := l.fl.TryLockContext(ctx, lockPoll)
	return ok, lockError(l.db, err)
}

func lockError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: the lock file %s.lock cannot be written; make the folder writable: %w", ErrReadOnly, path, err)
	}
	return fmt.Errorf("locking %s.lock: %w", path, err)
}

// pin remembers which lock file is held and reports whether it is the one the
// path leads to.
func (l *lock) pin() (same bool, err error) {
	if l.lockID, err = l.fl.Stat(); err != nil {
		return false, err
	}
	now, err := os.Stat(l.fl.Path())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(l.lockID, now), err
}

// watch remembers the database file and its WAL, to notice if they are replaced:
// what is committed would go to files that nobody can open any more.
func (l *lock) watch() (err error) {
	if l.dbID, err = os.Stat(l.db); err == nil {
		l.walID, err = os.Stat(l.db + "-wal")
	}
	return err
}

// check fails if the lock or the database is no longer the file it was.
func (l *lock) check() error {
	for path, was := range map[string]os.FileInfo{l.fl.Path(): l.lockID, l.db: l.dbID, l.db + "-wal": l.walID} {
		now, err := os.Stat(path)
		if err != nil || !os.SameFile(was, now) {
			return fmt.Errorf("%w: %s was removed or replaced under the running owner", ErrFenced, path)
		}
	}
	return nil
}

// release gives the lock back; the file stays.
func (l *lock) release() error { return l.fl.Unlock() }
