package segno_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// scheduled registers a flow with a schedule.
func scheduled(sc segno.Schedule) error {
	return segno.New("never-opened.db", segno.Options{}).Add(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: sc})
}

func TestBadIntervalsAreErrSchedule(t *testing.T) {
	for _, d := range []time.Duration{0, -1, -time.Hour, time.Millisecond - 1} {
		expectError(t, fmt.Sprintf("Every(%v)", d), scheduled(segno.Every(d)), segno.ErrSchedule)
		expectError(t, fmt.Sprintf("FixedDelay(%v)", d), scheduled(segno.FixedDelay(d)), segno.ErrSchedule)
	}
	for _, d := range []time.Duration{time.Millisecond, 1500 * time.Microsecond, 100 * 365 * 24 * time.Hour} {
		if err := errors.Join(scheduled(segno.Every(d)), scheduled(segno.FixedDelay(d))); err != nil {
			t.Errorf("an interval of %v: got error %v, want none", d, err)
		}
	}
	expectError(t, "At the zero time", scheduled(segno.At(time.Time{})), segno.ErrSchedule)
	s := segno.New("never-opened.db", segno.Options{})
	expectError(t, "EveryHours beyond what a Duration holds", s.EveryHours("f", one(to(done)), 1<<40), segno.ErrSchedule)
	expectError(t, "EverySeconds(0)", s.EverySeconds("f", one(to(done)), 0), segno.ErrSchedule)
	expectError(t, "EveryMinutes(-1)", s.EveryMinutes("f", one(to(done)), -1), segno.ErrSchedule)
	expect(t, "Len: a bad schedule is not registered", s.Len(), 0)
}

// What robfig/cron would panic on, or take for something else.
func TestWhatTheCronParserWouldPanicOnOrSwallowIsErrSchedule(t *testing.T) {
	for _, expr := range []string{
		"", " ", "nonsense", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8",
		"TZ=UTC", "CRON_TZ=America/New_York", "TZ=", "TZ= 0 5 * * *", "TZ=Local 0 5 * * *", "CRON_TZ=Mars/Olympus 0 5 * * *",
		"@every", "@every -1h", "@every 0s", "@every 500ms", "@every 1d", "@never",
		"*-garbage * * * *", "?-3 * * * *", "*-1-2-3 * * * *", "+5 * * * *", "1,,2 * * * *", ",5 * * * *", "5, * * * *",
		", * * * *", ", * * * * *", "*/90 * * * *", "*/60 * * * *", "*/0 * * * *", "5/-1 * * * *", "1-2-3 * * * *", "1.5 * * * *",
		strings.Repeat("1,", 5000) + "1 * * * *", "\x00 * * * *",
	} {
		err := scheduled(segno.Cron(expr))
		expectError(t, fmt.Sprintf("Cron(%.40q)", expr), err, segno.ErrSchedule)
		if err != nil && len(err.Error()) > 1500 {
			t.Errorf("Cron(%.40q): got a text of %d bytes, want a helpful one", expr, len(err.Error()))
		}
	}
}

func TestACronThatCanNeverFireIsErrNeverFires(t *testing.T) {
	for _, expr := range []string{"0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 30 FEB ?"} {
		err := scheduled(segno.Cron(expr))
		if !errors.Is(err, segno.ErrNeverFires) && !errors.Is(err, segno.ErrSchedule) {
			t.Errorf("Cron(%q): got error %v, want %v", expr, err, segno.ErrNeverFires)
		}
	}
	expectError(t, "31 February", scheduled(segno.Cron("0 0 31 2 *")), segno.ErrNeverFires)
	if err := scheduled(segno.Cron("0 0 29 2 *")); err != nil {
		t.Errorf("29 February: got error %v, want none", err)
	}
}

func TestGoodCronsAreTaken(t *testing.T) {
	inBubble(t, func(t *testing.T) { // it is Saturday, 2000-01-01 00:00 UTC
		var flows []segno.Flow
		wants := map[string]string{
			"* * * * *":                       "2000-01-01T00:01:00Z",
			"30 * * * * *":                    "2000-01-01T00:00:30Z",
			"@daily":                          "2000-01-02T00:00:00Z",
			"0 9 * * MON-FRI":                 "2000-01-03T09:00:00Z",
			"  0   9 * *   mon ":              "2000-01-03T09:00:00Z",
			"0 9 * * 7":                       "2000-01-02T09:00:00Z",
			"5/15 * * * *":                    "2000-01-01T00:05:00Z",
			"0 0 13 * FRI":                    "2000-01-07T00:00:00Z", // either day field
			"CRON_TZ=Europe/Berlin 0 9 * * *": "2000-01-01T08:00:00Z",
			"TZ=America/New_York 0 9 * * *":   "2000-01-01T14:00:00Z",
			"0 0 29 2 *":                      "2000-02-29T00:00:00Z",
		}
		for expr := range wants {
			flows = append(flows, segno.Flow{ID: expr, Workflow: one(to(done)), Schedule: segno.Cron(expr)})
		}
		r := newBed(t).start(flows...)
		for expr, want := range wants {
			expect(t, "next run of "+expr, r.status(expr).NextRun.Format(time.RFC3339), want)
		}
	})
}

func TestEveryFaultOfAFlowIsReportedTogether(t *testing.T) {
	err := segno.New("never-opened.db", segno.Options{}).Add(segno.Flow{
		Workflow: one(to(done)), Schedule: segno.Cron("nonsense"), Backoff: segno.BackoffPolicy{Initial: -5, Jitter: 3}, Overlap: -7, MaxPending: -1,
	})
	for _, want := range []error{segno.ErrSchedule, segno.ErrConfig} {
		expectError(t, "Add", err, want)
	}
	for _, want := range []string{"Initial", "Jitter", "id is empty", "Overlap", "MaxPending"} {
		expect(t, "the text has "+want, strings.Contains(fmt.Sprint(err), want), true)
	}
}

func TestAScheduleReadsAsItWasGiven(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		at := time.Now().Add(time.Hour)
		var flows []segno.Flow
		want := map[string]string{}
		for text, sc := range map[string]segno.Schedule{
			"":                                     {},
			"every 1m30s":                          segno.Every(90 * time.Second),
			"fixed delay 1.5s":                     segno.FixedDelay(1500 * time.Millisecond),
			"cron 0 9 * * MON-FRI":                 segno.Cron("0 9 * * MON-FRI"),
			"at 2000-01-01T01:00:00Z":              segno.At(at.In(time.FixedZone("x", 3600))),
			"cron CRON_TZ=Europe/Berlin 0 9 * * *": segno.Cron("TZ=Europe/Berlin 0 9 * * *"),
		} {
			id := fmt.Sprintf("f%d", len(flows))
			flows = append(flows, segno.Flow{ID: id, Workflow: one(to(done)), Schedule: sc})
			want[id] = text
		}
		r := newBed(t).start(flows...)
		synctest.Wait()
		for id, text := range want {
			expect(t, "schedule", r.status(id).Schedule, text)
		}
	})
}
