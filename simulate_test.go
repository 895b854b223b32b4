package segno_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// simulated plays a flow from the epoch on and lists the outcomes.
func simulated(t *testing.T, f segno.Flow, days int, outages []segno.Outage, o ...segno.SimulateOptions) string {
	t.Helper()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	out, err := segno.Simulate(f, outages, start, start.AddDate(0, 0, days), o...)
	if err != nil {
		t.Fatalf("Simulate: got error %v, want none", err)
	}
	var lines []string
	for _, s := range out {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s×%d %s %s", s.First.Format("02T15:04"), s.Count, s.Outcome, s.Reason)))
	}
	return strings.Join(lines, ", ")
}

func day(n, hour int) time.Time { return time.Date(2026, 1, n, hour, 0, 0, 0, time.UTC) }

func TestSimulateCatchesUp(t *testing.T) {
	down := []segno.Outage{{From: day(2, 1), To: day(4, 12)}}
	for want, c := range map[string]segno.CatchUp{
		"01T09:00×1 fired, 02T09:00×2 coalesced, 04T09:00×1 fired, 05T09:00×1 fired":                             segno.CatchUpLatest,
		"01T09:00×1 fired, 02T09:00×3 skipped missed, 05T09:00×1 fired":                                          segno.CatchUpSkip,
		"01T09:00×1 fired, 02T09:00×1 skipped catchup_cap, 03T09:00×1 fired, 04T09:00×1 fired, 05T09:00×1 fired": segno.CatchUpAll(2),
	} {
		expect(t, fmt.Sprint(c), simulated(t, segno.Flow{Schedule: segno.Cron("0 9 * * *"), CatchUp: c}, 5, down), want)
	}
	late := segno.Flow{Schedule: segno.Cron("0 9 * * *"), MaxLateness: 2 * time.Hour}
	expect(t, "MaxLateness", simulated(t, late, 5, down), "01T09:00×1 fired, 02T09:00×3 skipped too_late, 05T09:00×1 fired")
}

func TestSimulateFailures(t *testing.T) {
	broken := errors.New("broken")
	bad := func(slot time.Time) (time.Duration, error) {
		if slot.Day() < 3 {
			return time.Minute, broken
		}
		return time.Minute, nil
	}
	f := segno.Flow{Schedule: segno.Every(12 * time.Hour), Backoff: segno.BackoffPolicy{Initial: 13 * time.Hour, MaxDelay: 13 * time.Hour}}
	expect(t, "gate", simulated(t, f, 4, nil, segno.SimulateOptions{Run: bad}),
		"01T00:00×1 fired, 01T12:00×1 skipped backoff, 02T00:00×1 fired, 02T12:00×1 skipped backoff, 03T00:00×1 fired, 03T12:00×1 fired, 04T00:00×1 fired, 04T12:00×1 fired, 05T00:00×1 fired")
	f.Backoff = segno.BackoffPolicy{StreakLimit: 2}
	expect(t, "trip", simulated(t, f, 1, nil, segno.SimulateOptions{Run: bad}), "01T00:00×1 fired, 01T12:00×1 fired, 02T00:00×1 skipped tripped")
}

func TestSimulateOverlap(t *testing.T) {
	slow := segno.SimulateOptions{Run: func(time.Time) (time.Duration, error) { return 20 * time.Hour, nil }}
	f := segno.Flow{Schedule: segno.Every(8 * time.Hour)}
	expect(t, "Skip", simulated(t, f, 1, nil, slow), "01T00:00×1 fired, 01T08:00×1 skipped overlap, 01T16:00×1 skipped overlap, 02T00:00×1 fired")
	f.Overlap = segno.Replace
	expect(t, "Replace", simulated(t, f, 1, nil, slow), "01T00:00×1 fired, 01T08:00×1 fired, 01T16:00×1 fired, 02T00:00×1 fired")
}

func TestSimulateBounds(t *testing.T) {
	f := segno.Flow{Schedule: segno.Cron("0 9 * * *"), StartAt: day(2, 0), EndAt: day(4, 9)}
	expect(t, "bounds", simulated(t, f, 9, nil), "02T09:00×1 fired, 03T09:00×1 fired, 04T09:00×1 fired")
	f = segno.Flow{Schedule: segno.Cron("0 9 * * *"), MaxRuns: 2}
	expect(t, "MaxRuns", simulated(t, f, 9, nil), "01T09:00×1 fired, 02T09:00×1 fired")
	_, err := segno.Simulate(segno.Flow{Schedule: segno.Cron("0 9 * * *"), StartAt: day(4, 10), EndAt: day(5, 8)}, nil, day(1, 0), day(9, 0))
	expectError(t, "no slot between the bounds", err, segno.ErrNeverFires)
}

// A year of a schedule is a matter of milliseconds.
func BenchmarkSimulateYear(b *testing.B) {
	for b.Loop() {
		if _, err := segno.Simulate(segno.Flow{Schedule: segno.Cron("0 * * * *")}, nil, day(1, 0), day(366, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
