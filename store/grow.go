package store

import "os"

// grower returns a function for the writer's idle moments that makes the WAL
// file larger, a step at a time, until it holds as much as autocheckpoint ever
// lets it: overwriting a file syncs about twice as fast as growing it. SQLite
// takes the zeros behind its last frame for what they are. The function holds
// the write lock meanwhile, and returns false when there is nothing to do.
func (w *writer) grower() func() bool {
	done := w.smallWAL
	return func() bool {
		if done {
			return false
		}
		more, err := w.growWAL()
		done = !more || err != nil
		return !done
	}
}

func (w *writer) growWAL() (more bool, err error) {
	if _, err := w.begin.ExecContext(background); err != nil {
		return false, err
	}
	defer func() { _, _ = w.rollback.ExecContext(background) }()
	f, err := os.OpenFile(w.path+"-wal", os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 || st.Size() >= growTo {
		return false, err
	}
	_, err = f.WriteAt(make([]byte, min(growStep, growTo-st.Size())), st.Size())
	if err == nil {
		err = f.Sync()
	}
	return err == nil, err
}
