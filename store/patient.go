package store

import (
	"context"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/segnodev/segno/engine"
)

// Journal returns the store as the engine's journal. What a run must read to go
// on is read again when the disk fails: the run is in the hands of a goroutine,
// and nobody else would take it up before the next start.
func (s *Store) Journal() engine.Journal { return patient{s} }

type patient struct{ *Store }

// Memos is Store.Memos.
func (p patient) Memos(ctx context.Context, h *engine.Head) (map[string][]byte, error) {
	return outlast(ctx, p.Store, func() (map[string][]byte, error) { return p.Store.Memos(ctx, h) })
}

// Run is Reader.Run.
func (p patient) Run(ctx context.Context, run int64) (engine.Head, error) {
	return outlast(ctx, p.Store, func() (engine.Head, error) { return p.Store.Run(ctx, run) })
}

// Entry is Reader.Entry.
func (p patient) Entry(ctx context.Context, id int64) (engine.Entry, error) {
	return outlast(ctx, p.Store, func() (engine.Entry, error) { return p.Store.Entry(ctx, id) })
}

// Undone is Reader.Undone.
func (p patient) Undone(ctx context.Context, h *engine.Head) (map[int]bool, error) {
	return outlast(ctx, p.Store, func() (map[int]bool, error) { return p.Store.Undone(ctx, h) })
}

// outlast reads until it can be read. A damaged file is the store's failure.
func outlast[T any](ctx context.Context, s *Store, read func() (T, error)) (v T, err error) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		v, err = read()
		switch primary(err) {
		case lib.SQLITE_IOERR, lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_NOMEM, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL:
		case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
			s.Fail(err)
			return v, s.Err()
		default:
			if pause > minPause {
				s.setTrouble(nil)
			}
			return v, err
		}
		s.setTrouble(err)
		s.w.log.Warn("segno: what a run needs cannot be read, and is tried again", "error", err, "pause", pause)
		if !s.rest(ctx, pause) {
			return v, err
		}
	}
}

// rest waits, and reports whether there is any point in going on then.
func (s *Store) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-s.Failed:
	case <-s.closing:
	}
	return false
}
