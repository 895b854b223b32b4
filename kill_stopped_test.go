//go:build unix

package segno_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killStopped is an owner that is fenced in its first life, and finishes all in
// its second.
func killStopped(c *killChild) {
	s := segno.New(c.Path, c.options())
	c.check(s.Add(segno.Flow{ID: "jobs", Overlap: segno.Allow(0), Workflow: segno.Workflow[killState, killData]{
		Initial: "a", Steps: killSteps{"a": c.step("b", c.Nap), "b": c.step("done", c.Nap), "done": {Final: true}},
	}}))
	r := c.start(s)
	if c.Life > 1 {
		c.finish(r)
		return
	}
	c.trigger(r, "jobs", c.Runs, func(int) string { return "" })
	c.say(killEvent{What: "ready"})
	err := r.Wait()
	if !errors.Is(err, segno.ErrFenced) {
		c.check(fmt.Errorf("Wait: got = %w, want ErrFenced", err))
	}
	_, late := r.Trigger(context.Background(), "jobs", segno.Trigger{})
	if !errors.Is(late, segno.ErrFenced) {
		c.check(fmt.Errorf("Trigger: got = %w, want ErrFenced", late))
	}
	c.say(killEvent{What: "fenced"})
}

// TestKillStoppedOwner stops the owner's process in the middle of its runs: it
// keeps the file. When somebody deletes the lock, another owner finishes the
// runs, and the first, awake again, writes nothing more and says why.
func TestKillStoppedOwner(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "stopped", Runs: 20, Nap: 500 * time.Millisecond})
	first := rig.start()
	first.until("ready", 1)
	if n := rig.plan.Runs - rig.count("do", 1); n > 0 {
		first.until("do", n) // and then nothing is written for a while
	}
	pid := first.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(pid, nil, syscall.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	rig.deaths++ // as far as the next can see
	rig.look()

	_, err := segno.New(rig.plan.Path, segno.Options{}).Start(context.Background())
	faultSays(t, "another owner", err, segno.ErrLocked, fmt.Sprint("process ", pid))
	if err := os.Remove(rig.plan.Path + ".lock"); err != nil {
		t.Fatal(err)
	}
	rig.start().ends()
	rig.allCompleted([]string{"a", "b"})

	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	over := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	defer over.Stop()
	fenced := false
	for e := range first.lines {
		fenced = fenced || e.What == "fenced"
	}
	first.wait()
	if !fenced {
		t.Error("the first owner: got no ErrFenced, want one")
	}
	if got := killHeads(t, rig.plan.Path); !reflect.DeepEqual(got, rig.left) {
		t.Errorf("runs after it woke up: got = %+v, want %+v", got, rig.left)
	}
}
