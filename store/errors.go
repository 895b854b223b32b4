package store

import (
	"errors"
	"fmt"
	"io/fs"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/segnodev/segno/engine"
)

// Errors of the file and its owner. Package segno re-exports and documents them.
var (
	ErrLocked      = errors.New("segno: locked by another owner")
	ErrFenced      = errors.New("segno: fenced by a newer owner")
	ErrStoreFailed = errors.New("segno: store failed")
	ErrForeign     = errors.New("segno: not a segno database")
	ErrNewer       = errors.New("segno: database of a newer segno")
	ErrCorrupt     = errors.New("segno: database is corrupt")
	ErrReadOnly    = errors.New("segno: database is read-only")
	ErrClosed      = engine.ErrStopping // one error for all who meet the stop, steps included
	ErrNotFound    = errors.New("segno: not found")
	ErrTx          = errors.New("segno: statement not allowed in a shared transaction")
	// ErrConflict says that a run has been changed since it was read.
	ErrConflict = errors.New("segno: the run has moved on")
)

// code returns SQLite's extended result code of err, 0 for other errors.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// primary returns SQLite's primary result code of err, 0 for other errors.
func primary(err error) int { return code(err) & 0xff }

// transient reports whether nothing was committed and a retry may help.
func transient(err error) bool {
	switch primary(err) {
	case lib.SQLITE_FULL, lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_NOMEM, lib.SQLITE_INTERRUPT:
		return true
	}
	return false
}

// fatal reports whether the handle can no longer be trusted.
func fatal(err error) bool {
	if code(err) == lib.SQLITE_CORRUPT_VTAB {
		return false // a full-text index of the user's that does not fit its table
	}
	switch primary(err) {
	case lib.SQLITE_IOERR, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL:
		return true
	}
	return errors.Is(err, ErrFenced)
}

// halfDone reports whether a read-only connection found a transaction that a
// killed process left behind outside the WAL, which it must not roll back itself.
func halfDone(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == lib.SQLITE_READONLY_ROLLBACK
}

// opening names what is wrong with a file that does not open.
func opening(path string, err error) error {
	switch primary(err) {
	case lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: %s is not an SQLite file; give another path: %w", ErrForeign, path, err)
	case lib.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %s: restore a backup, or save what can be read with `sqlite3 %s .recover`: %w", ErrCorrupt, path, path, err)
	case lib.SQLITE_READONLY:
		return fmt.Errorf("%w: %s: make the file and its folder writable: %w", ErrReadOnly, path, err)
	case lib.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: cannot open %s: does the folder exist, and is it writable? %w", ErrReadOnly, path, err)
	case lib.SQLITE_FULL:
		return fmt.Errorf("%w: %s: free some space and start again: %w", ErrStoreFailed, path, err)
	case lib.SQLITE_IOERR:
		return fmt.Errorf("%w: %s: is the disk in order? %w", ErrStoreFailed, path, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s: make the file and its folder writable: %w", ErrReadOnly, path, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("opening %s: create the folder first: %w", path, err)
	}
	return fmt.Errorf("opening %s: %w", path, err)
}
