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
func (p patient) Memos(ctx context.Context, h *engine.Head) (memos map[string][]byte, err error) {
	err = p.outlast(ctx, func() (err error) { memos, err = p.Store.Memos(ctx, h); return err })
	return memos, err
}

// Run is Reader.Run.
func (p patient) Run(ctx context.Context, run int64) (h engine.Head, err error) {
	err = p.outlast(ctx, func() (err error) { h, err = p.Store.Run(ctx, run); return err })
	return h, err
}

// Entry is Reader.Entry.
func (p patient) Entry(ctx context.Context, id int64) (e engine.Entry, err error) {
	err = p.outlast(ctx, func() (err error) { e, err = p.Store.Entry(ctx, id); return err })
	return e, err
}

// Undone is Reader.Undone.
func (p patient) Undone(ctx context.Context, h *engine.Head) (visits map[int]bool, err error) {
	err = p.outlast(ctx, func() (err error) { visits, err = p.Store.Undone(ctx, h); return err })
	return visits, err
}

// outlast reads until it can be read. A damaged file is the store's failure.
func (p patient) outlast(ctx context.Context, read func() error) error {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := read()
		switch primary(err) {
		case lib.SQLITE_IOERR, lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_NOMEM, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL:
		case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
			p.Fail(err)
			return p.Err()
		default:
			if pause > minPause {
				p.setTrouble(nil)
			}
			return err
		}
		p.setTrouble(err)
		p.w.log.Warn("segno: what a run needs cannot be read, and is tried again", "error", err, "pause", pause)
		if !p.rest(ctx, pause) {
			return err
		}
	}
}

// rest waits, and reports whether there is any point in going on then.
func (p patient) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-p.Failed:
	case <-p.closing:
	}
	return false
}
