package powercut

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const sector = 512

// A Replay follows a recording up to where the power is cut.
type Replay struct {
	ops     []Op
	done    int
	now     map[string]*inode // the folder as the process sees it
	kept    map[string]*inode // and as it was synced
	changes []change          // of the folder, since
	claims  []any
}

// An inode is a file, whatever its name is by now.
type inode struct {
	kept    []byte // as it was synced
	pending []Op   // since
}

// A change is that of one entry in the folder; none: it was deleted.
type change struct {
	name string
	file *inode
}

// NewReplay returns the beginning of a recording.
func NewReplay(ops []Op) *Replay {
	return &Replay{ops: ops, now: map[string]*inode{}, kept: map[string]*inode{}}
}

// To goes on until n ops have happened, which it cannot take back.
func (r *Replay) To(n int) {
	for ; r.done < n; r.done++ {
		r.apply(&r.ops[r.done])
	}
}

// Claims returns what was acknowledged up to here.
func (r *Replay) Claims() []any { return r.claims[:len(r.claims):len(r.claims)] }

func (r *Replay) apply(op *Op) {
	switch op.Kind {
	case Acknowledge:
		r.claims = append(r.claims, op.Claim)
	case Create:
		r.now[op.Name] = &inode{}
		r.changes = append(r.changes, change{op.Name, r.now[op.Name]})
	case Delete:
		delete(r.now, op.Name)
		r.changes = append(r.changes, change{name: op.Name})
	case Write, Truncate:
		f := r.now[op.Name]
		f.pending = append(f.pending, *op)
	case Sync:
		r.now[op.Name].sync()
	case Forget:
		if f := r.now[op.Name]; f != nil {
			f.pending = nil
		}
	}
	if op.Dir {
		r.kept, r.changes = maps.Clone(r.now), nil
	}
}

func (f *inode) sync() {
	for i := range f.pending {
		f.kept = (&cut{}).play(f.kept, &f.pending[i])
	}
	f.pending = nil
}

// Image returns the files that the disk may hold if the power is cut here. What
// was synced is there; of the rest what chance says: of each write all, nothing
// or some sectors, of the folder's changes those up to one of them. Where a later
// write was kept and an earlier one was not, there are zeros, or rubbish.
func (r *Replay) Image(rnd *rand.Rand) map[string][]byte {
	c := &cut{rand: rnd, rubbish: rnd.IntN(3) == 0}
	changes := len(r.changes)
	switch rnd.IntN(8) {
	case 0: // everything, as after a kill
	case 1:
		c.drop, changes = 1, 0
	default:
		c.drop, c.tear = rnd.Float64(), rnd.Float64()/2
		changes = rnd.IntN(changes + 1)
	}
	folder := maps.Clone(r.kept)
	for _, ch := range r.changes[:changes] {
		if folder[ch.name] = ch.file; ch.file == nil {
			delete(folder, ch.name)
		}
	}
	image := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(folder)) { // the same for the same seed
		f := folder[name]
		b := slices.Clone(f.kept)
		for i := range f.pending {
			b = c.play(b, &f.pending[i])
		}
		image[name] = b
	}
	return image
}

// A cut decides on what was not synced. The zero cut keeps all.
type cut struct {
	rand       *rand.Rand
	drop, tear float64 // how likely it is for a write
	rubbish    bool
}

// play makes a write or a truncation, or what is left of it.
func (c *cut) play(b []byte, op *Op) []byte {
	chance := 1.0
	if c.rand != nil {
		chance = c.rand.Float64()
	}
	switch {
	case chance < c.drop:
		return b
	case op.Kind == Truncate && op.At <= int64(len(b)):
		return b[:op.At]
	case op.Kind == Truncate:
		return append(b, make([]byte, op.At-int64(len(b)))...)
	case chance < c.drop+c.tear:
		return c.torn(b, op)
	}
	return c.write(b, op.Data, op.At)
}

// torn makes some of a write's sectors.
func (c *cut) torn(b []byte, op *Op) []byte {
	for from := int64(0); from < int64(len(op.Data)); {
		to := min(from+sector-(op.At+from)%sector, int64(len(op.Data)))
		if c.rand.IntN(2) == 0 {
			b = c.write(b, op.Data[from:to], op.At+from)
		}
		from = to
	}
	return b
}

func (c *cut) write(b, data []byte, at int64) []byte {
	for n := len(b); int64(len(b)) < at; {
		b = append(b, make([]byte, at-int64(len(b)))...)
		for i := n; c.rubbish && i < len(b); i++ {
			b[i] = byte(c.rand.Uint32())
		}
	}
	if end := at + int64(len(data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[at:], data)
	return b
}

// Synced returns the files with what was synced, and nothing else.
func (r *Replay) Synced() map[string][]byte {
	image := map[string][]byte{}
	for name, f := range r.kept {
		image[name] = slices.Clone(f.kept)
	}
	return image
}
