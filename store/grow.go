package store

import (
	"os"
	"time"
)

const (
	walLimit = 256 << 20        // a WAL beyond this is cut back when readers let it
	walEvery = 10 * time.Second // how often its size is looked at
)

// grower returns a function for the writer's idle moments that makes the WAL
// file larger, a step at a time, until it holds as much as checkpoints ever
// let it: overwriting a file syncs about twice as fast as growing it. SQLite
// takes the zeros behind its last frame for what they are. The function holds
// the write lock meanwhile, and returns false when there is nothing to do.
func (w *writer) grower() func() bool {
	done, next := w.smallWAL, time.Now().Add(walEvery)
	return func() bool {
		if done {
			if now := time.Now(); now.After(next) {
				next = now.Add(walEvery)
				w.cutWAL()
			}
			return false
		}
		more, err := w.growWAL()
		done = !more || err != nil
		return !done
	}
}

func (w *writer) growWAL() (more bool, err error) {
	if _, err := w.begin.exec(); err != nil {
		return false, err
	}
	defer func() { _, _ = w.rollback.exec() }()
	f, err := os.OpenFile(w.path+"-wal", os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // what was written is synced before
	st, err := f.Stat()
	if err != nil || st.Size() == 0 || st.Size() >= growTo {
		return false, err
	}
	_, err = f.WriteAt(make([]byte, min(growStep, growTo-st.Size())), st.Size())
	if err == nil {
		err = f.Sync()
	}
	if err != nil { // the last of the space is for others, and for the next checkpoint, which should come soon
		_ = f.Truncate(st.Size())
		w.checkpointAt = 100
	}
	return err == nil, err
}

// cutWAL truncates a WAL that a long reader let grow, once the reader is gone.
// It does not wait for readers.
func (w *writer) cutWAL() {
	st, err := os.Stat(w.path + "-wal")
	if err != nil || st.Size() < walLimit {
		return
	}
	_, _ = w.conn.ExecContext(background, "PRAGMA busy_timeout = 0")
	busy, err := w.copyLog("TRUNCATE")
	_, _ = w.conn.ExecContext(background, "PRAGMA busy_timeout = 5000")
	w.log.Warn("segno: the write-ahead log is large; a reader keeps it from being reused", "bytes", st.Size(), "still_busy", busy, "error", err)
}
