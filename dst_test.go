package segno

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What each rule makes of a day on which the clock changes: all firings of the date, in the zone.
func TestDSTRules(t *testing.T) {
	const ny, lh = "America/New_York", "Australia/Lord_Howe"
	after, skip := GapRunAfter, GapSkip
	tests := []struct {
		zone, date, spec string
		rule             DST
		want             string
	}{
		{ny, "2026-03-08", "30 2 * * *", DST{Gap: after}, "03:00-04:00"},
		{ny, "2026-03-08", "30 2 * * *", DST{Gap: skip}, ""},
		{ny, "2026-03-08", "0,30 1-3 * * *", DST{Gap: skip}, "01:00-05:00 01:30-05:00 03:00-04:00 03:30-04:00"},
		{ny, "2026-03-08", "15,45 1-3 * * *", DST{Repeat: RepeatBoth}, "01:15-05:00 01:45-05:00 03:00-04:00 03:15-04:00 03:45-04:00"},
		{ny, "2026-11-01", "30 1 * * *", DST{Repeat: RepeatFirst}, "01:30-04:00"},
		{ny, "2026-11-01", "30 1 * * *", DST{Repeat: RepeatSecond}, "01:30-05:00"},
		{ny, "2026-11-01", "30 1 * * *", DST{Repeat: RepeatBoth}, "01:30-04:00 01:30-05:00"},
		{ny, "2026-11-01", "0,30 0-2 * * *", DST{Repeat: RepeatSecond}, "00:00-04:00 00:30-04:00 01:00-05:00 01:30-05:00 02:00-05:00 02:30-05:00"},
		{ny, "2026-11-01", "0 0-2 * * *", DST{Gap: skip, Repeat: RepeatBoth}, "00:00-04:00 01:00-04:00 01:00-05:00 02:00-05:00"},
		{ny, "2026-11-01", "0 9 * * *", DST{Gap: skip, Repeat: RepeatSecond}, "09:00-05:00"},
		{lh, "2026-10-04", "15 2 * * *", DST{Gap: skip}, ""},
		{lh, "2026-10-04", "30 2 * * *", DST{Gap: skip}, "02:30+11:00"},
		{lh, "2026-04-05", "30,45 1 * * *", DST{Repeat: RepeatSecond}, "01:30+10:30 01:45+10:30"},
		{lh, "2026-04-05", "29,30 1 * * *", DST{Repeat: RepeatBoth}, "01:29+11:00 01:30+11:00 01:30+10:30"},
		{"America/Santiago", "2026-09-06", "0 0 * * *", DST{Gap: skip}, ""},
		{"America/Havana", "2026-11-01", "0 0 * * *", DST{Repeat: RepeatSecond}, "00:00-05:00"},
		{"Pacific/Apia", "2011-12-30", "30 3 * * *", DST{Gap: after, Repeat: RepeatBoth}, ""},
		{"Pacific/Apia", "2011-12-31", "0 0 * * *", DST{Gap: skip}, "00:00+14:00"},
		// Kwajalein had the whole of a day twice, nearly: its clocks went back by 23 hours.
		{"Pacific/Kwajalein", "1969-09-30", "0 12 * * *", DST{Repeat: RepeatBoth}, "12:00+11:00 12:00-12:00"},
		{"Pacific/Kwajalein", "1969-09-30", "0 12 * * *", DST{Repeat: RepeatSecond}, "12:00-12:00"},
		// A wild spec counts real time under every rule.
		{ny, "2026-11-01", "*/30 1 * * *", DST{Gap: skip, Repeat: RepeatSecond}, "01:00-04:00 01:30-04:00 01:00-05:00 01:30-05:00"},
		{ny, "2026-03-08", "*/30 2 * * *", DST{Gap: after}, ""},
	}
	for _, tt := range tests {
		s := Cron("CRON_TZ=" + tt.zone + " " + tt.spec).withDST(tt.rule)
		got := firingsOf(t, s, tt.date)
		if got != tt.want {
			t.Errorf("%s on %s in %s, %+v: got = %q, want %q", tt.spec, tt.date, tt.zone, tt.rule, got, tt.want)
		}
	}
}

// firingsOf returns the firings of a date in the schedule's zone.
func firingsOf(t *testing.T, s Schedule, date string) string {
	t.Helper()
	var fired []string
	at := cronTime(t, "UTC", date+" 00:00:00").Add(-26 * time.Hour)
	for {
		next := s.next(time.Time{}, at)
		if !next.After(at) {
			t.Fatalf("%s: next(%s): got = %s, want a later time", s, at, next)
		}
		local := next.In(s.Zone())
		switch day := local.Format(time.DateOnly); {
		case day > date:
			return strings.Join(fired, " ")
		case day == date:
			fired = append(fired, local.Format("15:04-07:00"))
		}
		at = next
	}
}

// A rule that skips every firing of a year goes on to the next year.
func TestDSTRuleOfARareSchedule(t *testing.T) {
	s := Cron("CRON_TZ=America/New_York 30 2 8 3 *").withDST(DST{Gap: GapSkip})
	got := s.next(time.Time{}, cronTime(t, "UTC", "2026-01-01 00:00:00"))
	if want := cronTime(t, "America/New_York", "2027-03-08 02:30:00"); !got.Equal(want) {
		t.Errorf("got = %s, want %s", got, want)
	}
}

func TestADSTRuleIsPartOfTheText(t *testing.T) {
	for _, tt := range []struct {
		expr string
		rule DST
		want string
	}{
		{"30 2 * * *", DST{}, "cron 30 2 * * *"},
		{"30 2 * * *", DST{Gap: GapSkip}, "cron 30 2 * * * gap=skip"},
		{"30 2 * * *", DST{Repeat: RepeatSecond}, "cron 30 2 * * * repeat=second"},
		{"TZ=Asia/Tokyo 30 2 * * *", DST{Gap: GapSkip, Repeat: RepeatBoth}, "cron CRON_TZ=Asia/Tokyo 30 2 * * * gap=skip repeat=both"},
		{"*/5 * * * *", DST{Gap: GapSkip, Repeat: RepeatBoth}, "cron */5 * * * *"},
	} {
		s := Cron(tt.expr).withDST(tt.rule)
		if got := s.String(); got != tt.want {
			t.Errorf("got = %q, want %q", got, tt.want)
		}
		if got := storedSchedule(tt.want); got.cron == nil || got.cron.dst != s.cron.dst || got.String() != tt.want {
			t.Errorf("%q read back: got = %q", tt.want, got)
		}
	}
}

func TestBadDSTRules(t *testing.T) {
	for _, rule := range []DST{{Gap: 2}, {Gap: -1}, {Repeat: 3}, {Repeat: -1}} {
		if err := rule.validate(); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: got = %v, want %v", rule, err, ErrConfig)
		}
	}
}

func TestDSTNotes(t *testing.T) {
	const ny, lh = "America/New_York", "Australia/Lord_Howe"
	tests := []struct {
		zone, slot, spec string // the slot is in UTC
		rule             DST
		want             string
	}{
		{ny, "2026-03-08 07:00:00", "30 2 * * *", DST{}, "02:30 does not exist on 2026-03-08: runs at 03:00"},
		{ny, "2026-03-09 06:30:00", "30 2 * * *", DST{}, ""},
		{ny, "2026-03-08 07:00:00", "0,15,45 2,3 * * *", DST{}, "02:00 to 02:45 do not exist on 2026-03-08: one run at 03:00"},
		{ny, "2026-03-08 07:15:00", "0,15,45 2,3 * * *", DST{}, ""},
		{ny, "2026-03-08 07:00:00", "0 3 * * *", DST{}, ""},
		{ny, "2026-03-08 07:00:00", "0 2,3 * * *", DST{Gap: GapSkip}, ""},
		{ny, "2026-03-08 07:00:00", "*/30 * * * *", DST{}, ""},
		{ny, "2026-03-08 07:00:00", "5 30 2 * * *", DST{}, "02:30:05 does not exist on 2026-03-08: runs at 03:00"},
		{ny, "2026-11-01 05:30:00", "30 1 * * *", DST{}, "01:30 comes twice on 2026-11-01: this is the first time"},
		{ny, "2026-11-01 06:30:00", "30 1 * * *", DST{Repeat: RepeatSecond}, "01:30 comes twice on 2026-11-01: this is the second time"},
		{ny, "2026-11-01 05:00:00", "0 * * * *", DST{}, "01:00 comes twice on 2026-11-01: this is the first time"},
		{ny, "2026-11-01 06:00:00", "0 * * * *", DST{}, "01:00 comes twice on 2026-11-01: this is the second time"},
		{ny, "2026-11-01 04:59:00", "59 * * * *", DST{}, ""},
		{ny, "2026-11-01 07:00:00", "0 * * * *", DST{}, ""},
		{lh, "2026-10-03 15:30:00", "15 2 * * *", DST{}, "02:15 does not exist on 2026-10-04: runs at 02:30"},
		{lh, "2026-04-04 14:45:00", "45 1 * * *", DST{}, "01:45 comes twice on 2026-04-05: this is the first time"},
		{"America/Santiago", "2026-09-06 04:00:00", "0 0 * * *", DST{}, "00:00 does not exist on 2026-09-06: runs at 01:00"},
		{"America/Toronto", "1919-03-31 04:30:00", "45 23 * * *", DST{}, "23:45 does not exist on 1919-03-30: runs at 00:30 on 1919-03-31"},
		{"Pacific/Apia", "2011-12-30 10:00:00", "0 0 * * *", DST{}, ""},
		{"UTC", "2026-03-08 07:00:00", "0 7 * * *", DST{}, ""},
	}
	for _, tt := range tests {
		s, slot := Cron("CRON_TZ="+tt.zone+" "+tt.spec).withDST(tt.rule), cronTime(t, "UTC", tt.slot)
		if next := s.next(time.Time{}, slot.Add(-1)); !next.Equal(slot) {
			t.Errorf("%s in %s: after %s comes %s", tt.spec, tt.zone, slot, next)
		}
		if got := s.note(slot); got != tt.want {
			t.Errorf("%s in %s at %s: got = %q, want %q", tt.spec, tt.zone, tt.slot, got, tt.want)
		}
	}
	for _, s := range []Schedule{{}, Every(time.Hour), FixedDelay(time.Hour), At(time.Now()), Cron("nonsense")} {
		if got := s.DSTNote(time.Now()); got != "" {
			t.Errorf("%q: got = %q, want none", s, got)
		}
	}
}
