package store

import (
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Checkpoints are made here, behind a commit and its answers, and not by SQLite
// within it, since that tells nobody when one fails. A sync of the database that
// failed must be known: the system may have dropped all that was to be synced, and
// of what an earlier checkpoint had copied, one that a reader kept from its end,
// SQLite would not copy anything again. With the log all of it is there.

// takeCheckpoints takes them over from SQLite, at the length that is set for it.
func (w *writer) takeCheckpoints() error {
	if err := w.conn.QueryRowContext(background, "PRAGMA wal_autocheckpoint").Scan(&w.checkpointAt); err != nil {
		return err
	}
	_, err := w.conn.ExecContext(background, "PRAGMA wal_autocheckpoint = 0")
	return err
}

// checkpoint copies the log to the database once it is long, as far as readers let
// it. Whatever fails but the sync is made again behind one of the next commits:
// to ask how long the log is takes a tenth of a commit, so not each of them does.
func (w *writer) checkpoint() {
	if w.commits.Load()%uint64(max(w.checkpointAt/500, 1)) != 0 {
		return
	}
	var busy, pages, copied int
	err := (&Tx{w: w}).row("PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &pages, &copied)
	if err == nil && pages >= w.checkpointAt && copied < pages {
		_, _ = w.copyLog("PASSIVE")
	}
}

// copyLog makes a checkpoint, and reports whether a reader was in its way. If it
// cannot be synced it is the writer's last: the log is kept, and the next owner
// copies it from its start.
func (w *writer) copyLog(mode string) (busy bool, err error) {
	var pages, copied int
	err = w.conn.QueryRowContext(background, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &copied)
	if code(err) == lib.SQLITE_IOERR_FSYNC {
		w.unsynced = fmt.Errorf("%w: syncing the database: %w", ErrStoreFailed, err)
		_ = w.conn.Raw(func(conn any) error {
			_, err := conn.(sqlite.FileControl).FileControlPersistWAL("main", 1)
			return err
		})
	}
	return busy, err
}
