package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno"
)

// killRow is a row of demo_kill.
type killRow struct {
	number                    int
	moment                    string
	killed, back              time.Time
	streakBefore, streakAfter int
	windowBefore, windowAfter string // "" is none
	statusBefore, statusAfter string
}

func (p *proof) killed(ctx context.Context) (kills []killRow, err error) {
	const query = `SELECT kill, moment, killed, back, streak_before, streak_after,
	coalesce(window_before, ''), coalesce(window_after, ''), status_before, status_after FROM demo_kill ORDER BY kill`
	err = p.rows(ctx, query, func(scan func(...any) error) error {
		var k killRow
		var killed, back string
		err := scan(&k.number, &k.moment, &killed, &back, &k.streakBefore, &k.streakAfter,
			&k.windowBefore, &k.windowAfter, &k.statusBefore, &k.statusAfter)
		k.killed, k.back = clock(killed), clock(back)
		kills = append(kills, k)
		return err
	})
	return kills, err
}

// open reports whether the kill fell into a window that was still open when
// the next worker was back.
func (k *killRow) open() bool {
	return k.streakAfter > 0 && k.statusAfter == string(segno.StatusBackoff) && clock(k.windowAfter).After(k.back)
}

// kept compares what the supervisor read in the file after each kill with what
// the next worker's scheduler said after its start.
func (p *proof) kept(ctx context.Context) (string, error) {
	var bad faults
	kills, err := p.killed(ctx)
	if err != nil {
		return "", err
	}
	if len(kills) < p.kills {
		bad.add("the file tells of %d kills, not of %d", len(kills), p.kills)
	}
	shown := ""
	for i, k := range kills {
		if k.number != i+1 {
			bad.add("kill %d is missing", i+1)
		}
		if k.streakBefore != k.streakAfter || k.windowBefore != k.windowAfter || k.statusBefore != k.statusAfter {
			bad.add("kill %d: streak %d, window %q, %s before; streak %d, window %q, %s after",
				k.number, k.streakBefore, k.windowBefore, k.statusBefore, k.streakAfter, k.windowAfter, k.statusAfter)
		}
		if k.open() {
			shown = fmt.Sprintf("; kill %d fell into a window: streak %d, not before %s, both times, with %v left",
				k.number, k.streakAfter, k.windowAfter, clock(k.windowAfter).Sub(k.back).Round(time.Millisecond))
		}
	}
	if shown == "" {
		bad.add("no kill fell into an open window")
	}
	return many(len(kills), "kill") + shown, bad.err()
}

// windows checks that the gate was closed to the next worker, too.
func (p *proof) windows(ctx context.Context) (string, error) {
	var bad faults
	kills, err := p.killed(ctx)
	if err != nil {
		return "", err
	}
	text := ""
	for _, k := range kills {
		if !k.open() {
			continue
		}
		var first time.Time
		for _, run := range p.of("probe") {
			if !run.Started.After(k.killed) {
				continue
			}
			if first.IsZero() {
				first = run.Started
			}
			if run.Started.Before(clock(k.windowAfter)) {
				bad.add("run %d began at %v, the window of kill %d lasted until %s", run.ID, run.Started, k.number, k.windowAfter)
			}
		}
		if first.IsZero() {
			bad.add("no run has begun after kill %d", k.number)
		}
		text = fmt.Sprintf("after kill %d the next run began %v after its window", k.number, first.Sub(clock(k.windowAfter)).Round(time.Millisecond))
	}
	if text == "" {
		bad.add("there was no such window")
	}
	return text, bad.err()
}

// trip checks that the probe tripped, and that nothing ran before the reset.
func (p *proof) trip(ctx context.Context) (string, error) {
	var reset time.Time
	var note string
	err := p.rows(ctx, "SELECT at, note FROM segno_events WHERE flow = 'probe' AND kind = 'reset' ORDER BY id DESC LIMIT 1", func(scan func(...any) error) error {
		var at string
		err := scan(&at, &note)
		reset = clock(at)
		return err
	})
	if err != nil {
		return "", err
	}
	want := fmt.Sprintf("streak %d, tripped", probeBackoff.StreakLimit)
	if note != want {
		return "", fmt.Errorf("the last reset found %q, not %q", note, want)
	}
	var before, after *segno.RunInfo
	for _, run := range p.of("probe") {
		switch {
		case run.Started.Before(reset):
			before = &run
		case after == nil:
			after = &run
		}
	}
	switch {
	case before == nil || after == nil:
		return "", errors.New("there are no runs before and after the reset")
	case before.Status != segno.RunFailed:
		return "", fmt.Errorf("run %d, the last before the reset, is %s", before.ID, before.Status)
	case after.Status != segno.RunCompleted:
		return "", fmt.Errorf("run %d, the first after the reset, is %s", after.ID, after.Status)
	}
	return fmt.Sprintf("%s; no run for %v, from the end of run %d to the reset; then run %d completed",
		note, reset.Sub(before.Ended).Round(time.Millisecond), before.ID, after.ID), nil
}

// reports checks the slots of the cron flow, and that each that fired left one report.
func (p *proof) reports(ctx context.Context) (string, error) {
	slots, fired, bad, err := p.slots(ctx)
	if err != nil {
		return "", err
	}
	written := map[segno.RunID]int{}
	err = p.rows(ctx, "SELECT run, slot FROM demo_report", func(scan func(...any) error) error {
		var id segno.RunID
		var slot string
		err := scan(&id, &slot)
		written[id]++
		if !clock(slot).Equal(fired[id]) {
			bad.add("the report of run %d is for %s, the run for %v", id, slot, fired[id])
		}
		return err
	})
	for _, run := range p.of("report") {
		if want := b2i(run.Status == segno.RunCompleted); written[run.ID] != want {
			bad.add("run %d is %s and has written %d reports", run.ID, run.Status, written[run.ID])
		}
		if _, ok := fired[run.ID]; !ok {
			bad.add("run %d has no slot that fired", run.ID)
		}
	}
	if len(fired) == 0 {
		bad.add("no slot has fired")
	}
	return fmt.Sprintf("%s: %d fired, %d passed while no worker could fire them; %s",
		many(slots, "second"), len(fired), slots-len(fired), many(len(written), "report")), errors.Join(err, bad.err())
}

// slots walks the ledger of the report: it must go from second to second
// without a gap. It returns how many there are, and those that fired by run.
func (p *proof) slots(ctx context.Context) (n int, fired map[segno.RunID]time.Time, bad faults, err error) {
	fired = map[segno.RunID]time.Time{}
	var last time.Time
	const query = "SELECT first, last, count, outcome, coalesce(run, 0) FROM segno_slots WHERE flow = 'report' ORDER BY first"
	err = p.rows(ctx, query, func(scan func(...any) error) error {
		var from, to, outcome string
		var count int
		var run segno.RunID
		err := scan(&from, &to, &count, &outcome, &run)
		first := clock(from)
		if !last.IsZero() && !first.Equal(last.Add(time.Second)) {
			bad.add("the slot after %v is %v", last, first)
		}
		last = clock(to)
		if want := int(last.Sub(first)/time.Second) + 1; count != want {
			bad.add("from %v to %v there are %d slots, not %d", first, last, want, count)
		}
		if outcome == "fired" {
			fired[run] = first
		}
		n += count
		return err
	})
	return n, fired, bad, err
}
