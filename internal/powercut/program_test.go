package powercut_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder returns a temporary folder, in memory where that can be had: what is
// synced or not is the recorder's affair, not the disk's.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "powercut")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

type (
	stage string
	work  struct {
		N    int  `json:"n"`
		Fail bool `json:"fail,omitempty"`
	}
)

const (
	walkUnits = 5         // of a "walk"
	keepFor   = time.Hour // runs, after their end
)

// A program is a scheduler of several flows. What they do to the file beside
// segno's own rows is one row of "did" for each unit that was settled.
type program struct {
	path    string
	pragmas []string
	grown   bool // with a WAL that is grown ahead
	forever bool // nothing is deleted
	manual  bool // no schedules
	ack     func(claim)
}

// start starts the program.
func (p *program) start() (*segno.RunningScheduler, error) {
	o := segno.Options{
		SmallWAL: !p.grown, Schema: schema, Observers: []segno.Observer{segno.ObserverFunc(p.observe)},
		Retention: segno.Retention{Runs: 1, MinAge: keepFor, Completed: keepFor, Failed: keepFor},
	}
	if p.forever {
		o.Retention = segno.Retention{Runs: -1}
	}
	s := segno.New(p.path, o)
	err := errors.Join(
		s.Add(segno.Flow{ID: "order", Workflow: p.order(), Overlap: segno.Allow(4)}),
		s.Add(segno.Flow{ID: "walk", Workflow: p.walk(), Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "gate", Workflow: p.gate(), Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "nap", Workflow: p.nap(), Overlap: segno.Allow(0)}),
	)
	if !p.manual {
		err = errors.Join(err, s.Every("tick", p.tick(), 2*time.Minute), s.Cron("beat", p.tick(), "*/7 * * * *"))
	}
	if err != nil {
		return nil, err
	}
	return s.Start(crashpoint.WithPragmas(context.Background(), p.pragmas...))
}

func schema(tx segno.Tx) error {
	_, err := tx.Exec(`CREATE TABLE IF NOT EXISTS did (run INTEGER, visit INTEGER, unit TEXT, UNIQUE (run, visit, unit));
CREATE TABLE IF NOT EXISTS batch (id INTEGER, part INTEGER, UNIQUE (id, part))`)
	return err
}

// observe takes every event for a promise: it is told after the commit.
func (p *program) observe(_ context.Context, e segno.Event) {
	c := claim{run: e.Run, seq: e.Seq}
	if e.Kind == segno.EventRunFinished {
		c.status = e.Status
	}
	if e.Run != 0 {
		p.ack(c)
	}
}

// begin is called as a step's code begins: by then the visit is durable.
func (p *program) begin(ctx context.Context) {
	in := segno.InfoFrom(ctx)
	p.ack(claim{run: in.Run, visit: in.Visit})
}

// did joins a row to the commit that settles the unit.
func did(ctx context.Context, unit string) error {
	in := segno.InfoFrom(ctx)
	return segno.OnCommit(ctx, func(tx segno.Tx) error {
		_, err := tx.Exec("INSERT INTO did VALUES (?, ?, ?)", in.Run, in.Visit, unit)
		return err
	})
}

// to is a step that works and goes on.
func (p *program) to(next stage) segno.DoFunc[stage, work] {
	return func(ctx context.Context, w *work) (stage, error) {
		p.begin(ctx)
		w.N++
		return next, did(ctx, "")
	}
}

func undo(ctx context.Context, _ work) error { return did(ctx, "undo") }

func (p *program) order() segno.Workflow[stage, work] {
	ship := func(ctx context.Context, w *work) (stage, error) {
		p.begin(ctx)
		if w.Fail {
			return "", segno.Permanent(errors.New("out of stock"))
		}
		return "done", did(ctx, "")
	}
	return segno.Workflow[stage, work]{Initial: "reserve", Steps: segno.Steps[stage, work]{
		"reserve": {Do: p.to("charge"), Undo: undo},
		"charge":  {Do: p.to("ship"), Undo: undo},
		"ship":    {Do: ship},
		"done":    {Final: true},
	}}
}

func (p *program) walk() segno.Workflow[stage, work] {
	step := func(ctx context.Context, w *work, at *int) (stage, bool, error) {
		p.ack(claim{run: segno.InfoFrom(ctx).Run, units: *at})
		*at++
		w.N = *at
		return "done", *at < walkUnits, did(ctx, strconv.Itoa(*at))
	}
	return segno.Workflow[stage, work]{Initial: "walk", Steps: segno.Steps[stage, work]{
		"walk": {Do: segno.Stepped(step)}, "done": {Final: true},
	}}
}

// patience is how long a run waits.
func (p *program) patience() time.Duration {
	if p.manual {
		return 2 * time.Minute
	}
	return 20 * time.Minute
}

func (p *program) gate() segno.Workflow[stage, work] {
	pass := func(ctx context.Context, w *work, n int) (stage, error) {
		p.begin(ctx)
		w.N = n
		return "done", did(ctx, "")
	}
	late := segno.AwaitOptions[stage, work]{OnTimeout: p.to("done")}
	return segno.Workflow[stage, work]{Initial: "wait", Steps: segno.Steps[stage, work]{
		"wait": {Do: segno.Await("go", pass, late), Timeout: p.patience()}, "done": {Final: true},
	}}
}

func (p *program) nap() segno.Workflow[stage, work] {
	return segno.Workflow[stage, work]{Initial: "lie down", Steps: segno.Steps[stage, work]{
		"lie down": {Do: p.to("sleep"), Undo: undo}, "sleep": {Do: segno.Sleep[work](p.patience(), stage("done"))}, "done": {Final: true},
	}}
}

func (p *program) tick() segno.Workflow[stage, work] {
	return segno.Workflow[stage, work]{Initial: "work", Steps: segno.Steps[stage, work]{"work": {Do: p.to("done")}, "done": {Final: true}}}
}

// live is one life of the program: its callers, then so long of its schedules,
// and a stop. lives counts them from 1.
func (p *program) live(life int, schedules time.Duration) error {
	r, err := p.start()
	if err != nil {
		return err
	}
	p.ack(claim{started: true})
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { errs[i] = p.caller(r, life, i) })
	}
	wg.Wait()
	errs = append(errs, p.control(r))
	time.Sleep(schedules)
	return errors.Join(append(errs, r.Stop(context.Background()))...)
}

// caller is somebody who starts runs, waits for them, and writes rows.
func (p *program) caller(r *segno.RunningScheduler, life, i int) error {
	ctx := context.Background()
	for j := range 3 {
		id, err := p.trigger(r, "order", work{N: j, Fail: (i+j)%3 == 0})
		if err != nil {
			return err
		}
		batch := life*100 + i*10 + j
		if err := r.Write(ctx, func(tx segno.Tx) error { return writeBatch(tx, batch) }); err != nil {
			return err
		}
		p.ack(claim{batch: batch})
		info, err := r.WaitRun(ctx, id)
		if err != nil && info.Status != segno.RunFailed {
			return err
		}
		p.ack(claim{run: id, status: info.Status, data: string(info.Data)})
	}
	_, err := p.trigger(r, "walk", work{})
	return err
}

const batchParts = 3

func writeBatch(tx segno.Tx, id int) error {
	for part := range batchParts {
		if _, err := tx.Exec("INSERT OR IGNORE INTO batch VALUES (?, ?)", id, part); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) trigger(r *segno.RunningScheduler, flow string, w work) (segno.RunID, error) {
	id, err := r.Trigger(context.Background(), flow, segno.Trigger{Input: w})
	if err == nil {
		p.ack(claim{run: id})
	}
	return id, err
}

// control signals and cancels runs, and pauses a flow.
func (p *program) control(r *segno.RunningScheduler) error {
	ctx := context.Background()
	var errs []error
	for i := range 3 {
		id, err := p.trigger(r, "gate", work{})
		if i < 2 && err == nil {
			message := fmt.Sprint("message ", i)
			err = r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", ID: message, Payload: 7})
			p.ack(claim{run: id, message: message})
		}
		errs = append(errs, err)
	}
	for i := range 3 {
		id, err := p.trigger(r, "nap", work{})
		if i < 2 && err == nil {
			time.Sleep(time.Minute)
			err = r.CancelRun(ctx, id)
			p.ack(claim{run: id, cancelled: true})
		}
		errs = append(errs, err)
	}
	errs = append(errs, r.PauseFlow(ctx, "beat", segno.Pause{Note: "enough"}))
	p.ack(claim{paused: "beat"})
	return errors.Join(errs...)
}

// finish starts the program and lets it run until no run is open.
func (p *program) finish() error {
	r, err := p.start()
	if err != nil {
		return err
	}
	return errors.Join(p.settle(r), r.Stop(context.Background()))
}

func (p *program) settle(r *segno.RunningScheduler) error {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Hour)
	defer stop()
	runs, err := r.Runs(ctx, segno.RunFilter{Limit: 10_000, Status: []segno.RunStatus{
		segno.RunPending, segno.RunRunning, segno.RunParked, segno.RunWaiting, segno.RunUndoing, segno.RunStuck,
	}})
	for _, run := range runs {
		if info, waited := r.WaitRun(ctx, run.ID); !info.Status.Ended() {
			err = errors.Join(err, fmt.Errorf("run %d, %s in %s: %w", run.ID, run.Status, run.State, waited))
		}
	}
	return err
}
