package powercut

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A Recorder keeps what reached the file system, in order, and between it what
// was promised to callers. Its Record is a Hook.
type Recorder struct {
	// Dir is the folder, in which there is nothing at first, or what Begin says.
	Dir string
	// Deaf, if set, says which syncs the disk only pretends to make.
	Deaf func(op *Op) bool

	mu    sync.Mutex // guards what follows
	ops   []Op
	sizes map[string]int64 // of the files that are known
}

// Begin takes the folder to hold these files, all of them synced.
func (r *Recorder) Begin(folder map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sizes = map[string]int64{}
	for name, b := range folder {
		r.sizes[name] = int64(len(b))
		r.keep(Op{Kind: Create, Name: name})
		r.keep(Op{Kind: Write, Name: name, Data: b})
		r.keep(Op{Kind: Sync, Name: name, Dir: true})
	}
}

// Record makes a call, and keeps it if it succeeds.
func (r *Recorder) Record(op *Op, do func() int32) int32 {
	if op.Kind == Read {
		return do()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meet(op)
	rc := do()
	if rc != 0 || op.Kind == Sync && r.Deaf != nil && r.Deaf(op) {
		return rc
	}
	switch op.Kind {
	case Create:
		r.sizes[op.Name] = 0
	case Write:
		r.sizes[op.Name] = max(r.sizes[op.Name], op.At+int64(len(op.Data)))
	case Truncate:
		r.sizes[op.Name] = op.At
	case Delete:
		delete(r.sizes, op.Name)
	}
	r.keep(*op)
	return rc
}

// meet notes what happened to a file past SQLite: the store makes the database
// itself, and lets the WAL grow with zeros that it syncs.
func (r *Recorder) meet(op *Op) {
	if r.sizes == nil {
		r.sizes = map[string]int64{}
	}
	if op.Kind == Create || op.Kind == Delete {
		return
	}
	size, known := r.sizes[op.Name]
	if !known {
		r.keep(Op{Kind: Create, Name: op.Name})
		r.sizes[op.Name] = 0
	}
	if known && !strings.HasSuffix(op.Name, "-wal") {
		return
	}
	if st, err := os.Stat(filepath.Join(r.Dir, op.Name)); err == nil && st.Size() > size {
		r.keep(Op{Kind: Truncate, Name: op.Name, At: st.Size()})
		r.keep(Op{Kind: Sync, Name: op.Name})
		r.sizes[op.Name] = st.Size()
	}
}

func (r *Recorder) keep(op Op) {
	op.Data = bytes.Clone(op.Data)
	r.ops = append(r.ops, op)
}

// Forget notes that a sync of the file failed. As kernels do, the disk then
// forgets what was to be synced, and takes no later sync to be about it.
func (r *Recorder) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(Op{Kind: Forget, Name: name})
}

// Acknowledge notes that from now on somebody relies on what is claimed.
func (r *Recorder) Acknowledge(claim any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(Op{Kind: Acknowledge, Claim: claim})
}

// Ops returns what was recorded so far.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ops[:len(r.ops):len(r.ops)]
}
