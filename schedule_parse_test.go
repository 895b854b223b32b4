package segno_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

func TestParseSchedule(t *testing.T) {
	for text, want := range map[string]string{
		"every 10m":                      "every 10m0s",
		" Every  1h 30m ":                "every 1h30m0s",
		"fixed delay 5m":                 "fixed delay 5m0s",
		"at 2026-03-08T09:00:00Z":        "at 2026-03-08T09:00:00Z",
		"at 2026-03-08t09:00:00.5+01:00": "at 2026-03-08T08:00:00.5Z",
		"30 2 * * *":                     "cron 30 2 * * *",
		"cron @daily":                    "cron 0 0 * * *",
		"TZ=Europe/Berlin 0 9 * * mon":   "cron CRON_TZ=Europe/Berlin 0 9 * * MON",
		"30 2 * * * gap=after":           "cron 30 2 * * *",
		"@daily repeat=both gap=skip":    "cron 0 0 * * * gap=skip repeat=both",
	} {
		s, err := segno.ParseSchedule(text)
		if err != nil {
			t.Errorf("%q: got error %v, want none", text, err)
			continue
		}
		expect(t, text, s.String(), want)
		again, err := segno.ParseSchedule(want)
		expect(t, want+" read again", fmt.Sprint(again, err), want+" <nil>")
	}
}

func TestParseScheduleSaysWhatIsWrong(t *testing.T) {
	for text, says := range map[string]string{
		"":                             "empty",
		"every":                        "write one such as 90s",
		"every day":                    `"day" is no duration`,
		"every -5m":                    "the shortest is 1ms",
		"every 5m gap=skip":            "is no duration",
		"fixed 5m":                     "2 fields, want 5",
		"fixed delay":                  "is no duration",
		"at noon":                      "is no time",
		"at 2026-02-30T09:00:00Z":      "is no time",
		"cron":                         "empty",
		"nonsense":                     "1 fields, want 5",
		"30 2 * * * gap=both":          "gap=after and gap=skip",
		"30 2 * * * repeat=":           "repeat=first, repeat=second and repeat=both",
		"gap=skip":                     "empty",
		"CRON_TZ=Mars/Base 30 2 * * *": "use a name such as Europe/Berlin",
	} {
		_, err := segno.ParseSchedule(text)
		expectError(t, text, err, segno.ErrSchedule)
		if !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("%q: got = %v, want %q in it", text, err, says)
		}
	}
	_, err := segno.ParseSchedule("0 0 30 2 *")
	expectError(t, "30 February", err, segno.ErrNeverFires)
}

func TestNextOfASchedule(t *testing.T) {
	after := time.Date(2026, 3, 7, 12, 0, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"30 2 * * *":                   "[03-08 02:30:00 03-09 02:30:00 03-10 02:30:00]",
		"0 11 * * *":                   "[03-08 11:00:00 03-09 11:00:00 03-10 11:00:00]", // strictly after
		"TZ=America/New_York @daily":   "[03-08 05:00:00 03-09 04:00:00 03-10 04:00:00]",
		"every 10m":                    "[03-07 11:10:00 03-07 11:20:00 03-07 11:30:00]",
		"fixed delay 1h":               "[03-07 12:00:00 03-07 13:00:00 03-07 14:00:00]",
		"at 2026-03-08T09:00:00+01:00": "[03-08 08:00:00]",
		"at 2026-03-07T11:00:00Z":      "[]",
	} {
		s, err := segno.ParseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, at := range s.Next(after, 3) {
			got = append(got, at.Format("01-02 15:04:05"))
		}
		expect(t, text, fmt.Sprint(got), want)
		expect(t, text+": none asked for", len(s.Next(after, 0))+len(s.Next(after, -1)), 0)
	}
	expect(t, "manual", len(segno.Schedule{}.Next(after, 3)), 0)
	expect(t, "not valid", len(segno.Every(-1).Next(after, 3))+len(segno.Cron("x").Next(after, 3)), 0)
}

// A time whose year has no four digits in UTC would be stored as text that
// nobody reads back.
func TestATimeThatCannotBeStoredIsRefused(t *testing.T) {
	for _, text := range []string{"at 9999-12-31T23:59:59-01:00", "at 0000-01-01T00:00:00+01:00"} {
		_, err := segno.ParseSchedule(text)
		expectError(t, text, err, segno.ErrSchedule)
	}
	s := segno.New("", segno.Options{})
	err := s.Add(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.At(time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC))})
	expectError(t, "Add", err, segno.ErrSchedule)
	_, err = segno.ParseSchedule("at 9999-12-31T23:59:59Z")
	expect(t, "the last time", err, nil)
}
