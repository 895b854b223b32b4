package powercut_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno/internal/powercut"
	"github.com/segnodev/segno/segnotest"
)

// often makes SQLite copy the WAL back all the time, so that it is cut there, too.
const often = "wal_autocheckpoint = 40"

// A recording is what a program did to its disk.
type recording struct {
	ops  []powercut.Op
	from int           // what comes before is only there to begin with
	over time.Duration // how long it took
}

// record lets the program live twice, on a new file.
func record(t *testing.T, p program, rec *powercut.Recorder) *recording {
	t.Helper()
	r := &recording{}
	synctest.Test(t, func(t *testing.T) {
		rec.Dir = folder(t)
		remove, err := powercut.Install(rec.Dir, rec.Record)
		if err != nil {
			t.Fatal(err)
		}
		defer remove()
		p.path = filepath.Join(rec.Dir, "a.db")
		p.ack = func(c claim) {
			c.at = time.Now()
			rec.Acknowledge(c)
		}
		if err := errors.Join(p.live(1, 10*time.Minute), p.live(2, 75*time.Minute)); err != nil {
			t.Fatal(err)
		}
		c, err := read(p.path)
		if err != nil {
			t.Fatal(err)
		}
		segnotest.Check(t, p.path)
		for _, fault := range c.torn() {
			t.Error("without a cut: ", fault)
		}
		r.over = time.Since(segnotest.Epoch)
	})
	r.ops = rec.Ops()
	return r
}

// A blackout is where the power was cut before: what the disk then held, and
// what had been promised.
type blackout struct {
	image  map[string][]byte
	claims []any
	over   time.Duration
}

// again records a life of the program that begins with a blackout.
func again(t *testing.T, p program, b *blackout) *recording {
	t.Helper()
	r := &recording{}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(b.over)
		rec := &powercut.Recorder{Dir: folder(t)}
		for name, content := range b.image {
			if err := os.WriteFile(filepath.Join(rec.Dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		rec.Begin(b.image)
		for _, cl := range b.claims {
			rec.Acknowledge(cl)
		}
		r.from = len(rec.Ops())
		remove, err := powercut.Install(rec.Dir, rec.Record)
		if err != nil {
			t.Fatal(err)
		}
		defer remove()
		p.path = filepath.Join(rec.Dir, "a.db")
		p.ack = func(c claim) {
			c.at = time.Now()
			rec.Acknowledge(c)
		}
		if err := p.live(3, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		r.ops, r.over = rec.Ops(), time.Since(segnotest.Epoch)
	})
	return r
}

// A verdict is what images came to.
type verdict struct {
	images, corrupt, torn, lossy, lost, finished int
	faults                                       []string
}

func (v *verdict) String() string {
	return fmt.Sprintf("%d images: %d corrupt, %d with torn transactions, %d that lost %d claims; %d went on to the end",
		v.images, v.corrupt, v.torn, v.lossy, v.lost, v.finished)
}

// fault keeps the first few.
func (v *verdict) fault(format string, args ...any) {
	if len(v.faults) < 10 {
		v.faults = append(v.faults, fmt.Sprintf(format, args...))
	}
}

// a cutter judges images of a recording.
type cutter struct {
	t      *testing.T
	rec    *recording
	seed   uint64
	dir    string
	finish int // every so manyth image is one that a scheduler goes on with; 0: none
	verdict
}

// cut judges so many images.
func (c *cutter) cut(images int) *verdict {
	c.t.Helper()
	c.dir = folder(c.t)
	rnd := rand.New(rand.NewPCG(c.seed, 1))
	replay := powercut.NewReplay(c.rec.ops)
	for i, n := range c.places(rnd, images) {
		replay.To(n)
		image := replay.Image(rnd)
		c.images++
		if !c.judge(fmt.Sprintf("image %d, cut at %d", i, n), image, replay.Claims()) {
			continue
		}
		if c.finish > 0 && i%c.finish == 0 {
			c.goOn(fmt.Sprintf("image %d, cut at %d", i, n), image, replay.Claims())
		}
	}
	return &c.verdict
}

// places are where to cut: anywhere, and every other time right behind a
// promise.
func (c *cutter) places(rnd *rand.Rand, images int) []int {
	var promises, places []int
	for i := c.rec.from; i < len(c.rec.ops); i++ {
		if c.rec.ops[i].Kind == powercut.Acknowledge {
			promises = append(promises, i+1)
		}
	}
	for i := range images {
		if i%2 == 0 {
			places = append(places, promises[rnd.IntN(len(promises))])
		} else {
			places = append(places, c.rec.from+rnd.IntN(len(c.rec.ops)+1-c.rec.from))
		}
	}
	slices.Sort(places)
	return places
}

// put writes an image in the place of the one before.
func (c *cutter) put(image map[string][]byte) string {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(filepath.Join(c.dir, "a.db"+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.t.Fatal(err)
		}
	}
	for name, b := range image {
		if err := os.WriteFile(filepath.Join(c.dir, name), b, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return filepath.Join(c.dir, "a.db")
}

// judge looks at an image, and reports whether it is sound.
func (c *cutter) judge(what string, image map[string][]byte, claims []any) bool {
	path := c.put(image)
	got, err := c.look(path, image)
	if err != nil {
		c.corrupt++
		c.fault("%s: %v", what, err)
		return false
	}
	if torn := got.torn(); len(torn) > 0 {
		c.torn++
		c.fault("%s: %s", what, strings.Join(torn, "; "))
	}
	lost := got.lost(claims)
	if len(lost) > 0 {
		c.lossy++
		c.lost += len(lost)
		c.fault("%s: lost %d of %d claims: %v", what, len(lost), len(claims), lost[0])
	}
	return len(lost) == 0
}

// look opens an image and checks it.
func (c *cutter) look(path string, image map[string][]byte) (*contents, error) {
	if _, ok := image["a.db"]; !ok {
		return &contents{}, nil
	}
	if _, ok := image["a.db-journal"]; ok { // who reads only must not play it back
		if err := playBack(path); err != nil {
			return nil, err
		}
	}
	got, err := read(path)
	if err != nil || !got.ours {
		return got, err
	}
	q := &quiet{TB: c.t}
	segnotest.Check(q, path)
	return got, q.err
}

func playBack(path string) error {
	db, err := openFile(path, "rw")
	if err != nil {
		return err
	}
	_, err = db.Exec("PRAGMA quick_check")
	return errors.Join(err, db.Close())
}

// quiet is a test that only takes down what is wrong.
type quiet struct {
	testing.TB
	err error
}

func (q *quiet) Helper() {}
func (q *quiet) Errorf(format string, args ...any) {
	q.err = errors.Join(q.err, fmt.Errorf(format, args...))
}

// goOn starts the program on an image, as after the power is back, and lets it
// end all runs.
func (c *cutter) goOn(what string, image map[string][]byte, claims []any) {
	c.t.Helper()
	p := program{path: c.put(image), forever: true, ack: func(claim) {}}
	var err error
	synctest.Test(c.t, func(*testing.T) {
		time.Sleep(c.rec.over)
		err = p.finish()
	})
	got, errRead := c.look(p.path, map[string][]byte{"a.db": nil})
	if err := errors.Join(err, errRead); err != nil {
		c.corrupt++
		c.fault("%s: going on: %v", what, err)
		return
	}
	c.finished++
	if torn := got.torn(); len(torn) > 0 {
		c.torn++
		c.fault("%s: having gone on: %s", what, strings.Join(torn, "; "))
	}
	for _, cl := range got.lost(claims) {
		if cl.seq = 0; !got.holds(&cl) {
			c.lost++
			c.fault("%s: having gone on: lost %v", what, cl)
		}
	}
}

// seedOf prints the seed, by which images can be had again.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return seed
}

// rehearse records the program and cuts its power so many times.
func rehearse(t *testing.T, p program, rec *powercut.Recorder, images int) *verdict {
	t.Helper()
	c := cutter{t: t, rec: record(t, p, rec), seed: seedOf(t), finish: 20}
	v := c.cut(images)
	t.Logf("%d calls; %v", len(c.rec.ops), v)
	return v
}

// A cut of the power, wherever it falls, corrupts nothing, tears no transaction
// and loses nothing of what was promised.
func TestPowerCut(t *testing.T) {
	images := 250
	if testing.Short() {
		images = 20
	}
	survives(t, rehearse(t, program{pragmas: []string{often}}, &powercut.Recorder{}, images))
}

func survives(t *testing.T, v *verdict) {
	t.Helper()
	if v.corrupt+v.torn+v.lost > 0 || v.finished == 0 {
		t.Errorf("got = %v, want nothing corrupt, torn or lost\n%s", v, strings.Join(v.faults, "\n"))
	}
}

// The power may fail again while what the first time has left is recovered.
func TestPowerCutAgain(t *testing.T) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	cutAgain(t, rounds, 20)
}

func cutAgain(t *testing.T, rounds, images int) {
	t.Helper()
	p := program{pragmas: []string{often}}
	rec, seed := record(t, p, &powercut.Recorder{}), seedOf(t)
	rnd := rand.New(rand.NewPCG(seed, 2))
	for i, n := range (&cutter{rec: rec}).places(rnd, rounds) {
		replay := powercut.NewReplay(rec.ops)
		replay.To(n)
		b := &blackout{image: replay.Image(rnd), claims: replay.Claims()}
		if n := len(b.claims); n > 0 {
			b.over = b.claims[n-1].(claim).at.Sub(segnotest.Epoch)
		}
		c := cutter{t: t, rec: again(t, p, b), seed: seed + uint64(i), finish: 20}
		survives(t, c.cut(images))
	}
}

// The same over and over, with checkpoints that are rare or all the time, and
// with a WAL that is grown ahead.
func TestLongPowerCut(t *testing.T) {
	if os.Getenv("SEGNO_LONG") == "" {
		t.Skip("SEGNO_LONG is not set")
	}
	for name, tt := range map[string]struct {
		program
		images int
	}{
		"checkpoints all the time": {program{pragmas: []string{"wal_autocheckpoint = 5"}}, 1200},
		"often":                    {program{pragmas: []string{often}}, 1200},
		"now and then":             {program{pragmas: []string{"wal_autocheckpoint = 300"}}, 1200},
		"little in memory":         {program{pragmas: []string{often, "cache_size = 10"}}, 1200},
		"as rarely as usual":       {program{}, 400},
		"grown ahead":              {program{grown: true}, 150},
	} {
		t.Run(name, func(t *testing.T) { survives(t, rehearse(t, tt.program, &powercut.Recorder{}, tt.images)) })
	}
	t.Run("again and again", func(t *testing.T) { cutAgain(t, 15, 40) })
}

// Were it otherwise, it would be found: with weaker settings than segno insists
// on promises are lost, and with none, or on a disk that only pretends to sync,
// the file is corrupt.
func TestPowerCutBites(t *testing.T) {
	for name, tt := range map[string]struct {
		pragma string
		deaf   func(*powercut.Op) bool
		want   func(*verdict) bool
	}{
		"synchronous NORMAL": {
			pragma: "synchronous = NORMAL", // for SQLite that is what it is meant to be
			want:   func(v *verdict) bool { return v.lossy > 0 && v.corrupt == 0 && v.torn == 0 },
		},
		"synchronous OFF": {
			pragma: "synchronous = OFF",
			want:   func(v *verdict) bool { return v.lossy > 0 && v.corrupt > 0 },
		},
		"syncs of the database are none": {
			deaf: func(op *powercut.Op) bool { return op.Name == "a.db" },
			want: func(v *verdict) bool { return v.corrupt > 0 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			variant(t, name != "synchronous NORMAL")
			p := program{pragmas: []string{often}}
			if tt.pragma != "" {
				p.pragmas = append(p.pragmas, tt.pragma)
			}
			if v := rehearse(t, p, &powercut.Recorder{Deaf: tt.deaf}, 40); !tt.want(v) {
				t.Errorf("got = %v, want the loss to be found\n%s", v, strings.Join(v.faults, "\n"))
			}
		})
	}
}
