//go:build unix

package segno_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
)

// The kill tests run real processes: the test binary starts itself again as a
// program that works on a file, kills it with SIGKILL, looks at what is left,
// and starts the next one. Each such process is a "life" of the program. A life
// reports what it does as events on a pipe, each written before the deed; a
// pipe keeps what was written when its writer is killed.

const (
	killChildVar = "SEGNO_KILL_CHILD" // the killPlan, for a process that is a life
	killLimit    = time.Minute        // for anything that is waited for
)

// killLong asks for many more rounds.
var killLong = os.Getenv("SEGNO_LONG") != ""

// A killPlan is what a life is told.
type killPlan struct {
	Scenario string
	Path     string
	Life     int // counts from 1
	Mode     string
	Runs     int
	Nap      time.Duration // of a step, or of a wait
	Suspect  time.Duration // Options.SuspectFor
	At       int           // a life that kills itself does it at this commit
	Triggers int           // the life that triggers the runs
	Model    string        // of the "model" scenario
	Sent     int           // signals of it that were answered
}

// A killEvent is one thing that a life reports.
type killEvent struct {
	Life    int `json:"-"`
	What    string
	Run     segno.RunID `json:",omitempty"`
	Visit   int         `json:",omitempty"`
	State   string      `json:",omitempty"`
	Attempt int         `json:",omitempty"`
	Key     string      `json:",omitempty"`
	Text    string      `json:",omitempty"`
	At      time.Time
}

// killScenarios are what a life can do.
var killScenarios = map[string]func(*killChild){
	"flight":        killFlight,
	"poison":        killPoison,
	"relay":         killRelay,
	"suspect parks": killParkedSuspect,
	"rollback":      killRollback,
	"waits":         killWaits,
	"ledger":        killLedger,
	"gate":          killGate,
	"cancel":        killCancel,
	"stop":          killStop,
	"sweep":         killSweep,
	"history":       killHistory,
	"model":         killModelLife,
	"cursors":       killCursors,
	"storm":         killStorm,
	"stopped":       killStopped,
}

// TestKillChild is no test: it is the program that the kill tests run.
func TestKillChild(t *testing.T) {
	plan := os.Getenv(killChildVar)
	if plan == "" {
		return
	}
	c := &killChild{out: os.NewFile(3, "events"), commits: make(chan struct{}, 1)}
	c.check(json.Unmarshal([]byte(plan), &c.killPlan))
	go func() { // an orphan has nobody to report to
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	killScenarios[c.Scenario](c)
	os.Exit(0)
}

// killChild is a life, seen from inside.
type killChild struct {
	killPlan
	out     *os.File
	commits chan struct{} // rings after commits

	mu    sync.Mutex // guards what follows
	armed bool       // commits are counted
	made  int
	dead  bool // nothing is reported any more
}

// check ends the life on an error that it does not expect.
func (c *killChild) check(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "life %d: %v\n", c.Life, err)
		os.Exit(1)
	}
}

// say reports an event. The test itself has nobody to report to.
func (c *killChild) say(e killEvent) {
	if c.out == nil {
		return
	}
	e.At = time.Now()
	line, err := json.Marshal(e)
	c.check(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		_, err = c.out.Write(append(line, '\n'))
		c.check(err)
	}
}

// did reports that a step's code begins.
func (c *killChild) did(what string, ctx context.Context, text ...string) {
	in := segno.InfoFrom(ctx)
	c.say(killEvent{
		What: what, Run: in.Run, Visit: in.Visit, State: in.State, Attempt: in.Attempt, Key: in.Key,
		Text: strings.Join(text, ","),
	})
}

// options are those of every life.
func (c *killChild) options() segno.Options {
	level := &slog.HandlerOptions{Level: slog.LevelInfo}
	return segno.Options{SmallWAL: true, SuspectFor: c.Suspect, Logger: slog.New(slog.NewTextHandler(os.Stderr, level))}
}

// start starts a scheduler whose commits the life is told of.
func (c *killChild) start(s *segno.Scheduler) *segno.RunningScheduler {
	r, err := s.Start(crashpoint.With(context.Background(), c.gate))
	c.check(err)
	return r
}

// gate lets commits through, and kills the process at the chosen one.
func (c *killChild) gate(commit func() error) error {
	c.mu.Lock()
	if c.armed {
		c.made++
	}
	last := c.armed && c.made == c.At
	c.mu.Unlock()
	if last && c.Mode == "before" {
		c.die()
	}
	err := commit()
	if last {
		c.die()
	}
	select {
	case c.commits <- struct{}{}:
	default:
	}
	return err
}

// arm begins to count commits.
func (c *killChild) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = true
}

// commitsMade returns the number of commits since arm.
func (c *killChild) commitsMade() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// die is a death by SIGKILL, of which nothing is noticed.
func (c *killChild) die() {
	c.mu.Lock() // no event after it
	c.dead = true
	c.mu.Unlock()
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// until waits for a condition that commits bring about.
func (c *killChild) until(cond func() bool) {
	for !cond() {
		<-c.commits
	}
}

// open returns the runs that have not ended.
func (c *killChild) open(r *segno.RunningScheduler) []segno.RunInfo {
	runs, err := r.Runs(context.Background(), segno.RunFilter{Limit: 10_000, Status: []segno.RunStatus{
		segno.RunPending, segno.RunRunning, segno.RunParked, segno.RunWaiting, segno.RunUndoing, segno.RunStuck,
	}})
	c.check(err)
	return runs
}

// finish waits until every run has ended, and stops.
func (c *killChild) finish(r *segno.RunningScheduler) {
	for open := c.open(r); len(open) > 0; open = c.open(r) { // runs may start others
		for _, run := range open {
			_, err := r.WaitRun(context.Background(), run.ID)
			if errors.Is(err, segno.ErrStuck) {
				c.check(err)
			}
		}
	}
	c.check(r.Stop(context.Background()))
}

// killWork is a step's work, of some length.
func killWork(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// killRig is the parent's side: one file and the lives that work on it.
type killRig struct {
	t      *testing.T
	plan   killPlan
	rand   *rand.Rand
	events []killEvent              // of all lives
	began  map[string]bool          // deeds of the current life
	starts map[string]int           // deeds of all lives
	acked  map[segno.RunID]bool     // runs whose trigger was answered
	left   map[segno.RunID]killHead // what the last life has left in the file
	deaths int
}

// newKillRig returns a rig with a new file. What holds for every file is
// checked when the test ends.
func newKillRig(t *testing.T, plan killPlan) *killRig {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	plan.Path = filepath.Join(dir, "app.db")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := &killRig{
		t: t, plan: plan, rand: rand.New(rand.NewPCG(seed, 0)),
		starts: map[string]int{}, acked: map[segno.RunID]bool{}, left: map[segno.RunID]killHead{},
	}
	t.Cleanup(func() { killCheckFile(t, plan.Path) })
	return r
}

// killLife is a process.
type killLife struct {
	rig    *killRig
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	lines  chan killEvent
	limit  *time.Timer
	over   bool
}

// start begins the next life.
func (r *killRig) start() *killLife {
	r.t.Helper()
	r.plan.Life++
	r.began = map[string]bool{}
	plan, err := json.Marshal(r.plan)
	if err != nil {
		r.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	l := &killLife{rig: r, lines: make(chan killEvent, 4096), limit: time.NewTimer(killLimit)}
	l.cmd = exec.Command(exe, "-test.run=^TestKillChild$", "-test.timeout=2m")
	l.cmd.Env = append(os.Environ(), killChildVar+"="+string(plan), "GORACE=atexit_sleep_ms=0")
	l.cmd.Stderr, l.cmd.ExtraFiles = &l.stderr, []*os.File{in}
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	in.Close()
	go l.read(out)
	r.t.Cleanup(l.cleanUp)
	return l
}

// read passes on the events of a life, until it is over.
func (l *killLife) read(out *os.File) {
	defer close(l.lines)
	defer out.Close()
	for in := bufio.NewScanner(out); in.Scan(); {
		var e killEvent
		if json.Unmarshal(in.Bytes(), &e) == nil {
			l.lines <- e
		}
	}
}

// cleanUp ends a life that a failed test has left alone.
func (l *killLife) cleanUp() {
	if !l.over {
		_ = l.cmd.Process.Kill()
		for range l.lines {
		}
		_ = l.cmd.Wait()
	}
	if l.rig.t.Failed() {
		l.rig.t.Logf("standard error of life:\n%s", l.stderr.String())
	}
}

// next returns the next event, false at the end of the life.
func (l *killLife) next() (killEvent, bool) {
	l.rig.t.Helper()
	select {
	case e, ok := <-l.lines:
		if ok {
			e.Life = l.rig.plan.Life
			l.rig.note(e)
		}
		return e, ok
	case <-l.limit.C:
		l.rig.t.Fatalf("life %d: nothing happened for too long", l.rig.plan.Life)
		return killEvent{}, false
	}
}

// until waits for the nth event of a kind.
func (l *killLife) until(what string, n int) killEvent {
	l.rig.t.Helper()
	e, ok := l.reach(what, n)
	if !ok {
		l.wait()
		l.rig.t.Fatalf("life %d ended before %q", l.rig.plan.Life, what)
	}
	return e
}

// reach waits for the nth event of a kind, or for the end of the life.
func (l *killLife) reach(what string, n int) (killEvent, bool) {
	l.rig.t.Helper()
	for {
		e, ok := l.next()
		if !ok {
			return e, false
		}
		if e.What == what {
			n--
		}
		if n <= 0 {
			return e, true
		}
	}
}

// strike kills the life at the nth event of a kind, or a little later. It
// reports false if the life was over by then.
func (l *killLife) strike(what string, n int) bool {
	l.rig.t.Helper()
	l.reach(what, n)
	time.Sleep(time.Duration(l.rig.rand.IntN(2000)) * time.Microsecond) // anywhere between two events
	_ = l.cmd.Process.Signal(syscall.SIGKILL)
	killed := l.died()
	if !killed {
		l.rig.t.Logf("life %d was over before it could be killed", l.rig.plan.Life)
	}
	return killed
}

// kill kills the life, and looks at the file.
func (l *killLife) kill() {
	l.rig.t.Helper()
	_ = l.cmd.Process.Signal(syscall.SIGKILL)
	if !l.died() {
		l.rig.t.Fatalf("life %d had ended before it was killed", l.rig.plan.Life)
	}
}

// ends waits for the life to end by itself.
func (l *killLife) ends() {
	l.rig.t.Helper()
	if l.died() {
		l.rig.t.Fatalf("life %d was killed, want it to end by itself", l.rig.plan.Life)
	}
}

// died waits for the end of the life, looks at the file, and reports whether a
// SIGKILL was it.
func (l *killLife) died() bool {
	l.rig.t.Helper()
	for {
		if _, ok := l.next(); !ok {
			break
		}
	}
	killed := l.wait()
	if killed {
		l.rig.deaths++
	}
	l.rig.look()
	return killed
}

// wait reaps the process.
func (l *killLife) wait() (killed bool) {
	l.rig.t.Helper()
	_ = l.cmd.Wait()
	l.over = true
	l.stdin.Close()
	if strings.Contains(l.stderr.String(), "DATA RACE") {
		l.rig.t.Errorf("life %d: data race", l.rig.plan.Life)
	}
	status := l.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGKILL {
		return true
	}
	if status.ExitStatus() != 0 {
		l.rig.t.Fatalf("life %d ended with status %d:\n%s", l.rig.plan.Life, status.ExitStatus(), l.stderr.String())
	}
	return false
}

// note judges an event by what the life before has left in the file: what was
// finished there must not happen again, and within one life nothing twice.
func (r *killRig) note(e killEvent) {
	r.t.Helper()
	r.events = append(r.events, e)
	was, known := r.left[e.Run]
	switch e.What {
	case "ack":
		r.acked[e.Run] = true
		return
	case "do":
		if known && (was.ended || e.Visit < was.visit) {
			r.t.Errorf("life %d: %s of run %d, visit %d, runs again; its transition was committed (%+v)", e.Life, e.State, e.Run, e.Visit, was)
		}
	case "undo":
		if known && (was.ended || was.undone[e.Visit]) {
			r.t.Errorf("life %d: undo of %s of run %d, visit %d, runs again; it was committed (%+v)", e.Life, e.State, e.Run, e.Visit, was)
		}
	default:
		return
	}
	deed := fmt.Sprintf("%s %d/%d/%s attempt %d", e.What, e.Run, e.Visit, e.State, e.Attempt)
	if r.began[deed] {
		r.t.Errorf("life %d: %s began twice", e.Life, deed)
	}
	r.began[deed] = true
	if r.starts[deed]++; r.starts[deed] > r.deaths+1 {
		r.t.Errorf("%s began %d times with %d deaths", deed, r.starts[deed], r.deaths)
	}
}

// look reads the file that a life has left. Every run that was promised must
// be there.
func (r *killRig) look() {
	r.t.Helper()
	r.left = killHeads(r.t, r.plan.Path)
	for id := range r.acked {
		if _, ok := r.left[id]; !ok {
			r.t.Errorf("run %d is lost: its trigger was answered", id)
		}
	}
}

// count counts the events of a kind in a life, 0 for all lives.
func (r *killRig) count(what string, life int) (n int) {
	for _, e := range r.events {
		if e.What == what && (life == 0 || e.Life == life) {
			n++
		}
	}
	return n
}
