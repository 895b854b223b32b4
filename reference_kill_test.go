//go:build unix

package segno_test

import (
	"testing"
	"time"
)

// referenceSigkill kills the program by SIGKILL in a step whose entry is committed.
func referenceSigkill(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "flight", Triggers: 1, Runs: 1, Nap: 100 * time.Millisecond})
	l := rig.start()
	l.until("do", 2)
	l.kill()
	for id, h := range rig.left {
		if h.state != "b" || !h.held || h.ended {
			t.Errorf("run %d: got state %s, held %v, ended %v, want it held in b", id, h.state, h.held, h.ended)
		}
	}
	l = rig.start()
	if e := l.until("do", 1); e.State != "b" || e.Visit != 2 || e.Attempt != 1 {
		t.Errorf("first step behind the kill: got %s, visit %d, attempt %d, want b, 2, 1", e.State, e.Visit, e.Attempt)
	}
	l.ends()
	expect(t, "steps behind the kill", rig.count("do", 2), 2)
	rig.allCompleted([]string{"a", "b", "c"})
}
