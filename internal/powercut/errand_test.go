package powercut_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segnodev/segno"
)

// An errand is what the program does while its disk fails: a few runs side by
// side, each started with a key, so that it can be gone about again.
type errand struct {
	program
	began atomic.Int64 // bodies of steps
}

// newErrand returns an errand on a file that will be at path.
func newErrand(path string, ack func(claim)) *errand {
	e := &errand{}
	e.program = program{path: path, manual: true, forever: true, pragmas: []string{often}}
	e.ack = func(c claim) {
		if c.visit > 0 {
			e.began.Add(1)
		}
		ack(c)
	}
	return e
}

// errandRuns are the runs of an errand: keys and flows.
var errandRuns = []struct {
	key, flow string
	input     work
	status    segno.RunStatus
}{
	{"ordered", "order", work{}, segno.RunCompleted},
	{"out of stock", "order", work{Fail: true}, segno.RunFailed},
	{"walked", "walk", work{}, segno.RunCompleted},
	{"signalled", "gate", work{}, segno.RunCompleted},
	{"late", "gate", work{}, segno.RunCompleted},
	{"slept", "nap", work{}, segno.RunCompleted},
	{"cancelled", "nap", work{}, segno.RunCancelled},
}

// run goes on the errand with a scheduler, and returns when it is done, or
// cannot be.
func (e *errand) run(r *segno.RunningScheduler) error {
	errs := make([]error, len(errandRuns))
	var wg sync.WaitGroup
	for i := range errandRuns {
		wg.Go(func() { errs[i] = e.one(r, i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// one sees to one run.
func (e *errand) one(r *segno.RunningScheduler, i int) error {
	n := errandRuns[i]
	ctx, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	id, err := r.Trigger(ctx, n.flow, segno.Trigger{Input: n.input, Key: n.key})
	if err != nil {
		return err
	}
	e.ack(claim{run: id})
	switch n.key {
	case "signalled":
		if err = r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", ID: "a", Payload: 7}); err == nil {
			e.ack(claim{run: id, message: "a"})
		}
	case "cancelled":
		time.Sleep(10 * time.Second)
		if err = r.CancelRun(ctx, id); err == nil {
			e.ack(claim{run: id, cancelled: true})
		}
	case "ordered":
		if err = r.Write(ctx, func(tx segno.Tx) error { return writeBatch(tx, 1) }); err == nil {
			e.ack(claim{batch: 1})
		}
	}
	if err != nil && !errors.Is(err, segno.ErrEnded) { // it has, if the errand is gone on again
		return err
	}
	info, err := r.WaitRun(ctx, id)
	if info.Status != n.status {
		return fmt.Errorf("run %d, %s: got = %s, want %s: %w", id, n.key, info.Status, n.status, err)
	}
	e.ack(claim{run: id, status: info.Status, data: string(info.Data)})
	return nil
}

// outcome is what the errand has left in the file, crashes aside.
func (e *errand) outcome() (string, error) {
	db, err := openFile(e.path, "ro")
	if err != nil {
		return "", err
	}
	defer db.Close()
	var lines []string
	err = each(db, `SELECT r.key, r.status || ' ' || r.state || ' ' || r.visit || ' ' || r.data || ', ' ||
	(SELECT group_concat(kind || visit, ' ') FROM (SELECT * FROM _segno_journal j WHERE j.run = r.run AND kind <> 'crash' ORDER BY id)) || ', did ' ||
	coalesce((SELECT group_concat(visit || unit, ' ') FROM (SELECT * FROM did d WHERE d.run = r.run ORDER BY visit, unit)), 'nothing') || ', signals ' ||
	(SELECT count(*) FROM _segno_signal s WHERE s.run = r.run) || ', batches ' || (SELECT count(*) FROM batch)
FROM _segno_run r ORDER BY r.key`, func(scan func(...any) error) error {
		var key, what string
		err := scan(&key, &what)
		lines = append(lines, key+": "+what)
		return err
	})
	return strings.Join(lines, "\n"), err
}
