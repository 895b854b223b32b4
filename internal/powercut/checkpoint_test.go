package powercut_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/segnodev/segno/internal/powercut"
	"github.com/segnodev/segno/store"
)

// A checkpoint that a reader cuts short leaves pages that are copied and not
// synced. If the sync of the next one fails they may be gone, and SQLite would
// not copy them again: the store says that it has failed, and keeps the log.
func TestACheckpointThatCannotBeSyncedKeepsTheLog(t *testing.T) {
	rec := &powercut.Recorder{Dir: folder(t)}
	var broken, broke atomic.Bool
	remove, err := powercut.Install(rec.Dir, func(op *powercut.Op, do func() int32) int32 {
		if op.Kind == powercut.Sync && strings.HasSuffix(op.Name, ".db") && broken.CompareAndSwap(true, false) {
			broke.Store(true)
			rec.Forget(op.Name)
			return sqlite3.SQLITE_IOERR_FSYNC
		}
		return rec.Record(op, do)
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{
		Path: filepath.Join(rec.Dir, "a.db"), SmallWAL: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Pragmas: []string{"wal_autocheckpoint = 20"},
	})
	if err != nil {
		t.Fatal(err)
	}
	write := func(query string) error {
		return s.Update(ctx, func(tx *store.Tx) error {
			return tx.User("test", func() error { _, err := tx.Exec(query); return err })
		})
	}
	if err := write("CREATE TABLE filled (text)"); err != nil {
		t.Fatal(err)
	}
	rows := 0
	fill := func(n int) (err error) {
		for ; n > 0 && err == nil; n-- {
			if err = write("INSERT INTO filled VALUES (hex(randomblob(4000)))"); err == nil {
				rows++
			}
		}
		return err
	}
	if err := fill(4); err != nil { // not yet a reason for a checkpoint
		t.Fatal(err)
	}
	reader, err := s.DB().Begin()
	if err == nil {
		_, err = reader.Exec("SELECT count(*) FROM filled")
	}
	if err = errors.Join(err, fill(30), reader.Rollback()); err != nil { // copied up to where the reader is
		t.Fatal(err)
	}
	broken.Store(true)
	if err := fill(30); !errors.Is(err, store.ErrStoreFailed) || !broke.Load() {
		t.Errorf("writing behind the sync that failed (%v): got = %v, want %v", broke.Load(), err, store.ErrStoreFailed)
	}
	if err := errors.Join(s.Close(), s.Release()); err != nil {
		t.Error(err)
	}
	remove()
	replay := powercut.NewReplay(rec.Ops())
	replay.To(len(rec.Ops()))
	left := folder(t)
	for name, b := range replay.Synced() {
		if err := os.WriteFile(filepath.Join(left, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", filepath.Join(left, "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var sound string
	var found int
	err = errors.Join(db.QueryRow("PRAGMA integrity_check").Scan(&sound), db.QueryRow("SELECT count(*) FROM filled").Scan(&found))
	if err != nil || sound != "ok" || found < rows {
		t.Errorf("after a power cut: got = %d rows, %s (%v), want the %d that were written, ok", found, sound, err, rows)
	}
}
