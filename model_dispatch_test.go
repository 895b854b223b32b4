package segno_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"pgregory.net/rapid"
)

// Random sequences of operations on the scheduler itself, with a real file. After
// each of them the file is checked, and how the flow stands is compared with a
// model that counts.
func TestModelOfTheDispatcher(t *testing.T) {
	want := 300
	if testing.Short() {
		want = 30
	}
	modelDispatcher(t, want)
}

// The same, until it is thousands of operations.
func TestLongModelOfTheDispatcher(t *testing.T) {
	if os.Getenv("SEGNO_LONG") == "" {
		t.Skip("set SEGNO_LONG=1 to run it")
	}
	modelDispatcher(t, 4_000)
}

// modelDispatcher plays the same sequences each time: those of the seeds from
// -rapid.seed on, or from 1. Since it sets the flag, no other test may run beside it.
func modelDispatcher(t *testing.T, want int) {
	given := flag.Lookup("rapid.seed").Value.String()
	defer func() { _ = flag.Set("rapid.seed", given) }()
	first, err := strconv.Atoi(given)
	if err != nil {
		t.Fatal(err)
	}
	done, failing := 0, false
	for seed := max(first, 1); done < want && !t.Failed(); seed++ {
		if err := flag.Set("rapid.seed", strconv.Itoa(seed)); err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(rt *rapid.T) {
			if done >= want && !failing { // rapid asks for a hundred sequences
				return
			}
			flow, ops := drawLiveFlow(rt), rapid.SliceOfN(rapid.Uint16(), 20, 40).Draw(rt, "ops")
			schedules := rapid.SliceOfN(rapid.SampledFrom(liveSchedules), 2, 2).Draw(rt, "schedules")
			var n int
			var err error
			synctest.Test(t, func(t *testing.T) {
				n, err = playLive(filepath.Join(t.TempDir(), "model.db"), flow, schedules, ops)
			})
			if done += n; err != nil {
				failing = true
				rt.Fatalf("%v\n%s", err, liveText(flow, schedules, ops))
			}
		})
	}
	t.Logf("%d operations", done)
}

func liveText(f segno.Flow, schedules []liveSchedule, ops []uint16) string {
	var names []string
	for _, op := range ops {
		names = append(names, fmt.Sprintf("%s %d", liveOps[int(op)%len(liveOps)].name, int(op)/len(liveOps)))
	}
	return fmt.Sprintf("schedules %v, overlap %d, catch up %d, retries %d, runs %d, streak limit %d\n%q",
		schedules, f.Overlap, f.CatchUp, f.SlotRetries, f.MaxRuns, f.Backoff.StreakLimit, names)
}

// A liveSchedule is a schedule with the longest time between two slots.
type liveSchedule struct {
	segno.Schedule
	period time.Duration
	delay  bool // a FixedDelay
}

var liveSchedules = []liveSchedule{
	{segno.Every(7 * time.Second), 7 * time.Second, false},
	{segno.Every(time.Minute), time.Minute, false},
	{segno.FixedDelay(time.Minute), time.Minute, true},
	{segno.Cron("*/5 * * * *"), 5 * time.Minute, false},
}

func drawLiveFlow(t *rapid.T) segno.Flow {
	return segno.Flow{
		ID:          "f",
		Overlap:     rapid.SampledFrom([]segno.Overlap{segno.Skip, segno.Replace, segno.Allow(2)}).Draw(t, "overlap"),
		CatchUp:     rapid.SampledFrom([]segno.CatchUp{segno.CatchUpLatest, segno.CatchUpSkip, segno.CatchUpAll(3)}).Draw(t, "catch up"),
		SlotRetries: rapid.IntRange(0, 2).Draw(t, "retries"),
		MaxRuns:     rapid.SampledFrom([]int{0, 0, 9}).Draw(t, "max runs"),
		Backoff: segno.BackoffPolicy{
			Initial: 20 * time.Second, Jitter: -1, StreakLimit: rapid.SampledFrom([]int{0, 0, 3}).Draw(t, "streak limit"),
		},
	}
}

// liveOps are the operations, the more often the likelier.
var liveOps = []struct {
	name string
	do   func(m *liveModel, n int) error
}{
	{"wait", (*liveModel).wait}, {"wait", (*liveModel).wait}, {"wait", (*liveModel).wait}, {"wait", (*liveModel).wait}, {"wait", (*liveModel).wait},
	{"set", (*liveModel).set}, {"set", (*liveModel).set},
	{"trigger", (*liveModel).trigger}, {"trigger", (*liveModel).trigger},
	{"pause", (*liveModel).pause}, {"resume", (*liveModel).resume}, {"resume", (*liveModel).resume},
	{"reset", (*liveModel).reset}, {"cancel", (*liveModel).cancel}, {"skip", (*liveModel).skip}, {"backfill", (*liveModel).backfill},
	{"stop", (*liveModel).stop}, {"kill", (*liveModel).kill}, {"doom", (*liveModel).doom}, {"doom", (*liveModel).doom},
	{"clock", (*liveModel).clock},
}

// playLive performs operations on a flow in a file of its own.
func playLive(path string, f segno.Flow, schedules []liveSchedule, ops []uint16) (done int, fault error) {
	l := &liveFlow{path: path, flow: f}
	l.steps.restarted()
	l.flow.Workflow, l.flow.Schedule = one(l.steps.do), schedules[0].Schedule
	m := &liveModel{liveFlow: l, schedules: schedules, liveSchedule: schedules[0]}
	if err := l.start(); err != nil {
		return 0, err
	}
	defer func() {
		fault = errors.Join(fault, m.liveFlow.stop())
		synctest.Wait()
	}()
	for i, op := range ops {
		if err := m.operate(int(op)%len(liveOps), int(op)/len(liveOps)); err != nil {
			return i, fmt.Errorf("after %d, %s %d at %s: %w", i, liveOps[int(op)%len(liveOps)].name, int(op)/len(liveOps), m.now().Format(time.RFC3339Nano), err)
		}
	}
	return len(ops), m.calm()
}

// operate performs an operation, starts the scheduler again if it has died of
// it, and checks.
func (m *liveModel) operate(op, n int) error {
	synctest.Wait()
	before := *m
	err := liveOps[op].do(m, n)
	synctest.Wait()
	if m.isDead() {
		m.unsure, m.begun = err != nil, time.Now()
		err = m.revive()
	}
	synctest.Wait()
	if err == nil {
		err = m.check(&before)
	}
	return err
}

// span returns a time to wait: of a slot or some.
func (m *liveModel) span(n int) time.Duration {
	return []time.Duration{time.Second, m.period / 3, m.period, 5 * m.period}[n%4]
}

func (m *liveModel) wait(n int) error {
	time.Sleep(m.span(n))
	return nil
}

func (m *liveModel) set(n int) error {
	m.steps.set(n%2 == 0, []time.Duration{0, 3 * time.Second, m.period + time.Second}[n/2%3])
	return nil
}

func (m *liveModel) trigger(n int) error {
	t := segno.Trigger{Reset: n%3 == 0}
	want := error(nil)
	switch open, err := m.number(`SELECT active + queued FROM _segno_flow`); {
	case err != nil:
		return err
	case m.tripped && !t.Reset:
		want = segno.ErrTripped
	case m.flow.Overlap == segno.Skip && open > 0:
		want = segno.ErrRunning
	}
	_, err := m.run.Trigger(context.Background(), "f", t)
	if err == nil && t.Reset {
		m.cleared()
	}
	if !errors.Is(err, want) && !m.isDead() {
		return fmt.Errorf("trigger: got = %v, want %v", err, want)
	}
	if m.isDead() {
		return err
	}
	return nil
}

func (m *liveModel) pause(n int) error {
	p := segno.Pause{}
	if n%2 == 0 {
		p.Until = m.now().Add(m.span(n / 2))
	}
	err := m.run.PauseFlow(context.Background(), "f", p)
	if err == nil {
		m.paused, m.pauseUntil = true, p.Until
	}
	return err
}

func (m *liveModel) resume(n int) error {
	err := m.run.ResumeFlow(context.Background(), "f", segno.Resume{CatchUp: n%2 == 0})
	if err == nil {
		m.paused = false
	}
	return err
}

func (m *liveModel) reset(int) error {
	err := m.run.ResetFlow(context.Background(), "f")
	if err == nil {
		m.cleared()
	}
	return err
}

func (m *liveModel) cancel(int) error { return m.run.CancelFlow(context.Background(), "f") }

func (m *liveModel) skip(int) error {
	err := m.run.SkipNext(context.Background(), "f", "holiday")
	if errors.Is(err, segno.ErrConfig) { // there is none
		return nil
	}
	return err
}

func (m *liveModel) backfill(n int) error {
	_, err := m.run.Backfill(context.Background(), "f", m.now().Add(-time.Duration(n%8)*m.period), m.now())
	if errors.Is(err, segno.ErrConfig) { // a FixedDelay has none
		return nil
	}
	return err
}

// stop stops, and starts again after a while, with another schedule perhaps.
func (m *liveModel) stop(n int) error {
	if err := m.liveFlow.stop(); err != nil {
		return err
	}
	return m.again(n)
}

func (m *liveModel) kill(n int) error {
	m.liveFlow.kill()
	if err := m.run.Wait(); !errors.Is(err, segno.ErrStoreFailed) {
		return err
	}
	m.steps.restarted()
	return m.again(n)
}

func (m *liveModel) again(n int) error {
	time.Sleep(m.span(n))
	m.liveSchedule = m.schedules[n/4%2]
	m.flow.Schedule, m.begun = m.Schedule, time.Now()
	return m.start()
}

// doom lets it die at one of the commits to come.
func (m *liveModel) doom(n int) error {
	m.liveFlow.doom(1+n/2%12, n%2 == 0)
	return nil
}

// clock sets the clock, and waits until that is noticed.
func (m *liveModel) clock(n int) error {
	step := []time.Duration{-5 * time.Second, -time.Hour, -30 * time.Hour, time.Minute, 5 * time.Hour, 30 * time.Hour}[n%6]
	m.ahead.Add(int64(step))
	m.stepped = true
	time.Sleep(11 * time.Second)
	return nil
}

// number is what a query of one number finds.
func (m *liveModel) number(query string) (n int64, err error) {
	var v sql.NullInt64
	err = m.run.DB().QueryRow(query).Scan(&v)
	return v.Int64, err
}
