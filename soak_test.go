package segno_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

const (
	soakPace   = 20 * time.Millisecond // between two triggers
	soakSample = 10 * time.Second
	soakCycle  = 70 * time.Second // no pass of the pruner lies further behind than this
	soakWAL    = 20 << 20         // the log is made 17 MB large at once, and is not to grow
)

// soakFor is how long the soak lasts; zero: it is not asked for.
func soakFor(t *testing.T) time.Duration {
	t.Helper()
	if text := os.Getenv("SEGNO_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 150*time.Second {
			t.Fatalf("SEGNO_SOAK=%q: give a duration of 150s at least: the file has its size behind the second pass of the pruner", text)
		}
		return d
	}
	if os.Getenv("SEGNO_LONG") != "" {
		return 150 * time.Second
	}
	return 0
}

// soakWays are the ways a run of the soak may go, and how it ends.
var soakWays = map[leg]segno.RunStatus{
	"plain": segno.RunCompleted, "retry": segno.RunCompleted, "saga": segno.RunFailed, "poll": segno.RunCompleted, "batch": segno.RunCompleted,
	"split": segno.RunCompleted, "await": segno.RunCompleted, "sleep": segno.RunCompleted, "stepped": segno.RunCompleted,
}

// soakFlow begins with a step that sends each run the way that its text names.
func soakFlow() route {
	retry := segno.Retry{Attempts: 3, Initial: 20 * time.Millisecond, Jitter: -1}
	double := func(_ context.Context, i int) (int, error) { return 2 * i, nil }
	branch := func(ctx context.Context, c cargo) (int, error) { return double(ctx, c.N) }
	joined := func(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
		c.N = len(all)
		return done, nil
	}
	return route{Initial: "fork", Steps: legs{
		"fork": {
			Do: func(_ context.Context, c *cargo) (leg, error) {
				way, _, _ := strings.Cut(c.Text, "-")
				return leg(way), nil
			},
			Undo: func(context.Context, cargo) error { return nil },
		},
		"plain": {Do: to("last"), Next: []leg{"last"}},
		"last":  {Do: to(done)},
		"retry": {Retry: retry, Do: func(ctx context.Context, _ *cargo) (leg, error) {
			if segno.InfoFrom(ctx).Attempt < 3 {
				return "", errors.New("not yet")
			}
			return "last", nil
		}},
		"saga": {Do: func(context.Context, *cargo) (leg, error) { return "", segno.Permanent(errors.New("no good")) }},
		"poll": {Do: segno.Poll(func(_ context.Context, c *cargo) (leg, time.Duration, error) {
			if c.N++; c.N < 4 {
				return "", 30 * time.Millisecond, nil
			}
			return done, 0, nil
		})},
		"batch": {Do: segno.Batch(func(context.Context, cargo) ([]int, error) { return []int{1, 2, 3, 4, 5}, nil },
			double, joined, segno.BatchOptions{Concurrency: 2})},
		"split": {Do: segno.Split(segno.Join{Timeout: time.Minute}, joined, branch, branch, branch)},
		"await": {Timeout: time.Minute, Do: segno.Await("go", func(_ context.Context, c *cargo, n int) (leg, error) { c.N = n; return done, nil })},
		"sleep": {Do: segno.Sleep[cargo](100*time.Millisecond, done)},
		"stepped": {Do: segno.Stepped(func(_ context.Context, _ *cargo, at *int) (leg, bool, error) {
			*at++
			return done, *at < 4, nil
		})},
		done: {Final: true},
	}}
}

// soakStart starts the flows of the soak on a new file, of which next to
// nothing is kept.
func soakStart(t *testing.T, path string) *segno.RunningScheduler {
	t.Helper()
	s := segno.New(path, segno.Options{ParkAfter: 20 * time.Millisecond, Retention: segno.Retention{
		Runs: 20, MinAge: time.Second, Completed: time.Second, Failed: time.Second, Ledger: time.Second, Events: time.Second,
	}})
	slot := one(to(done))
	err := errors.Join(
		s.Add(segno.Flow{ID: "mix", Workflow: soakFlow(), Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "tick", Workflow: slot, Schedule: segno.Every(250 * time.Millisecond)}),
		s.Add(segno.Flow{ID: "drip", Workflow: slot, Schedule: segno.FixedDelay(500 * time.Millisecond)}),
		s.Add(segno.Flow{ID: "second", Workflow: slot, Schedule: segno.Cron("* * * * * *")}),
	)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A soakPoint is what the process and its file take at a time.
type soakPoint struct {
	at              time.Duration
	heap, file, wal int64
	goroutines      int
	runs            int // triggered up to now
}

// A soak is a load in real time, and what was seen of it.
type soak struct {
	t      *testing.T
	path   string
	r      *segno.RunningScheduler
	begin  time.Time
	ways   []leg
	open   []segno.RunID // of runs that may not have ended
	n      int           // triggered
	points []soakPoint
}

// TestStormSoak puts a mixed load on a file of which old runs are deleted, for as
// long as SEGNO_SOAK says: memory, goroutines, file and log must come to a size
// and keep it.
func TestStormSoak(t *testing.T) {
	d := soakFor(t)
	if d == 0 {
		t.Skip("set SEGNO_LONG=1 for 150 seconds of it, or SEGNO_SOAK=10m")
	}
	s := &soak{t: t, path: filepath.Join(t.TempDir(), "soak.db"), begin: time.Now()}
	for way := range soakWays {
		s.ways = append(s.ways, way)
	}
	s.r = soakStart(t, s.path)
	s.load(d)
	if err := s.r.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	segnotest.Check(t, s.path)
	s.verdict(d)
}

// load triggers runs at its pace, and stops for each sample until they have ended.
func (s *soak) load(d time.Duration) {
	s.t.Helper()
	pace := time.NewTicker(soakPace)
	defer pace.Stop()
	for next := soakSample; next <= d && !s.t.Failed(); {
		<-pace.C
		if time.Since(s.begin) < next {
			s.trigger()
			continue
		}
		s.settle()
		s.sample()
		next += soakSample
	}
}

// trigger takes on one run, with its signal if it is to wait for one.
func (s *soak) trigger() {
	s.t.Helper()
	ctx, way := context.Background(), s.ways[s.n%len(s.ways)]
	s.n++
	key := fmt.Sprintf("%s-%d", way, s.n)
	id, err := s.r.Trigger(ctx, "mix", segno.Trigger{Key: key, Input: cargo{Text: key}})
	if err == nil && way == "await" {
		err = s.r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", ID: "the one", Payload: s.n})
	}
	if err != nil {
		s.t.Fatalf("%s: %v", key, err)
	}
	s.open = append(s.open, id)
}

// settle waits for the end of every run, and looks at how it ended.
func (s *soak) settle() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, id := range s.open {
		_, _ = s.r.WaitRun(ctx, id) // the error of one that failed, or was deleted meanwhile
		run, err := s.r.Run(ctx, id)
		if errors.Is(err, segno.ErrNotFound) {
			continue
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if way, _, _ := strings.Cut(run.Key, "-"); run.Status != soakWays[leg(way)] {
			s.t.Errorf("%s: got = %s %s, want %s", run.Key, run.Status, run.Error, soakWays[leg(way)])
		}
	}
	s.open = s.open[:0]
}

// sample measures, between two of the runs that the schedules make.
func (s *soak) sample() {
	s.t.Helper()
	p := soakPoint{at: time.Since(s.begin).Round(time.Second), file: size(s.path), wal: size(s.path + "-wal"), runs: s.n}
	p.goroutines = s.goroutines()
	runtime.GC()
	runtime.GC() // what had a finalizer goes now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.heap = int64(m.HeapAlloc)
	s.points = append(s.points, p)
	s.t.Log(p)
}

// goroutines is how many there are when no run is in hand: the fewest of a second.
func (s *soak) goroutines() int {
	least := runtime.NumGoroutine()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		<-tick.C
		least = min(least, runtime.NumGoroutine())
	}
	return least
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

func (p soakPoint) String() string {
	return fmt.Sprintf("%4.0fs: %6d runs, heap %5.2f MB, %d goroutines, file %5.2f MB, WAL %5.2f MB",
		p.at.Seconds(), p.runs, mega(p.heap), p.goroutines, mega(p.file), mega(p.wal))
}

func mega(n int64) float64 { return float64(n) / (1 << 20) }

// verdict compares the second half with the end of the first: the highest of as
// long as the file takes from one pass of the pruner to the next.
func (s *soak) verdict(d time.Duration) {
	s.t.Helper()
	var first, second soakPoint
	for _, p := range s.points {
		switch {
		case p.at > d/2+soakSample/2:
			second = second.highest(p)
		case p.at > d/2-soakCycle:
			first = first.highest(p)
		}
	}
	s.t.Logf("first half, at its end: %v", first)
	s.t.Logf("second half, in all:    %v", second)
	for _, c := range []struct {
		what           string
		was, is, slack int64
	}{
		{"heap", first.heap, second.heap, 2 << 20},
		{"file", first.file, second.file, first.file/8 + soakLedger(d)}, // a pass may come a little later, and find more
		{"goroutines", int64(first.goroutines), int64(second.goroutines), 0},
		{"WAL", 0, second.wal, soakWAL},
	} {
		if c.was+c.slack < c.is {
			s.t.Errorf("%s: got = %d in the second half, want %d at most", c.what, c.is, c.was+c.slack)
		}
	}
	if first.file == 0 || second.file < 1<<20 {
		s.t.Errorf("file: got = %d and %d bytes, want a load that can be seen", first.file, second.file)
	}
}

// soakLedger is what half a soak adds to the ledger, of which the pruner deletes
// once an hour only: 7 slots a second of 100 bytes.
func soakLedger(d time.Duration) int64 {
	return 64<<10 + int64(min(d/2, time.Hour).Seconds())*7*100
}

// highest takes each figure from where it is higher.
func (p soakPoint) highest(q soakPoint) soakPoint {
	return soakPoint{max(p.at, q.at), max(p.heap, q.heap), max(p.file, q.file), max(p.wal, q.wal), max(p.goroutines, q.goroutines), max(p.runs, q.runs)}
}
