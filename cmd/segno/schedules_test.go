package main

import (
	"strings"
	"testing"
	"testing/synctest"
)

func TestScheduleCommands(t *testing.T) {
	newYork := []string{"--zone", "America/New_York"}
	for name, args := range map[string][]string{
		"schedules-next":             {"next", "30 2 * * *", "--from", "2026-03-07", "-n", "5"},
		"schedules-next-json":        {"next", "30 2 * * *", "--from", "2026-03-07", "-n", "2", "-o", "json"},
		"schedules-next-twice":       {"next", "30 * * * *", "--from", "2026-11-01 00:30", "-n", "4"},
		"schedules-next-rule":        {"next", "30 1 * * * repeat=both", "--from", "2026-11-01", "-n", "3"},
		"schedules-next-every":       {"next", "every 1h", "--from", "2026-03-08T01:00", "-n", "2"},
		"schedules-next-at":          {"next", "at 2026-03-08T09:00:00Z", "--from", "2026-03-08T09:00:00Z"},
		"schedules-next-none":        {"next", "at 2026-03-08T09:00:00Z", "--from", "2026-03-09"},
		"schedules-next-none-json":   {"next", "at 2026-03-08T09:00:00Z", "--from", "2026-03-09", "-o", "json"},
		"schedules-explain":          {"explain", "0 9 1 * MON"},
		"schedules-explain-realtime": {"explain", "*/10 * * * *"},
		"schedules-explain-rule":     {"explain", "30 2 * * * gap=skip repeat=second"},
		"schedules-explain-json":     {"explain", "30 2 * * *", "-o", "json"},
		"schedules-explain-every":    {"explain", "every 90m"},
	} {
		r := segnoCommand(t, append(append([]string{"schedules"}, args...), newYork...)...)
		if r.code != exitOK {
			t.Errorf("segno %s: exit code: got = %d, want %d", name, r.code, exitOK)
		}
		golden(t, name, "app.db", r)
	}
}

// Without --from it is now, without --zone it is UTC.
func TestNextFromNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		golden(t, "schedules-next-now", "app.db", segnoCommand(t, "schedules", "next", "0 0 29 2 *", "-n", "2"))
	})
}

func TestScheduleCommandsSayWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "next, explain"},
		{[]string{"next"}, "needs one EXPR"},
		{[]string{"next", "30", "2", "*", "*", "*"}, `put it in quotes: "30 2 * * *"`},
		{[]string{"next", "30 2 * *"}, "4 fields, want 5"},
		{[]string{"next", "0 0 30 2 *"}, "no such date"},
		{[]string{"next", "@daily", "-n", "0"}, "from 1 to 10000"},
		{[]string{"next", "@daily", "--from", "tomorrow"}, `"tomorrow" is no time`},
		{[]string{"next", "@daily", "--zone", "Mars/Base"}, "use a name such as Europe/Berlin"},
		{[]string{"next", "every 1h", "--zone", "Mars/Base"}, "use a name such as Europe/Berlin"},
		{[]string{"next", "@daily", "--zone", "Local"}, "depends on the machine"},
		{[]string{"next", "TZ=Asia/Tokyo @daily", "--zone", "UTC"}, "names its zone already"},
		{[]string{"explain", "every hour"}, "is no duration"},
		{[]string{"explain", "every 1h", "--zone", "Mars/Base"}, "use a name such as Europe/Berlin"},
	} {
		r := segnoCommand(t, append([]string{"schedules"}, c.args...)...)
		if r.code != exitUsage || !strings.Contains(r.errOut, c.says) {
			t.Errorf("segno schedules %q: got = %d, want %d and %q in:\n%s", c.args, r.code, exitUsage, c.says, r.errOut)
		}
	}
}
