package segno

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzParseSchedule looks for text whose schedule is stored in a way that is not
// read back as the same one, that is due when it should not be, or whose error
// is none of the named ones.
func FuzzParseSchedule(f *testing.F) {
	for _, text := range []string{
		"every 10m", " Every  1h 30m ", "every 2562047h47m16s", "every 1.0000009ms", "fixed delay 5m", "FIXED DELAY 1µs",
		"at 2026-03-08T09:00:00Z", "at 2026-03-08t09:00:00.5+01:00", "at 9999-12-31T23:59:59-01:00", "at 0000-01-01T00:00:00+01:00",
		"cron @daily repeat=both gap=skip", "TZ=Europe/Berlin 30 2 * * * gap=after", "CRON_TZ=Pacific/Apia */7 0 3 * * 6 repeat=second",
		"gap=skip", "every 5m gap=skip", "0 0 30 2 *", "cron", "",
	} {
		f.Add(text, int64(1_775_000_000))
		f.Add(text, int64(1_772_956_799))
	}
	f.Fuzz(func(t *testing.T, text string, sec int64) {
		s, err := ParseSchedule(text)
		if err != nil {
			if !errors.Is(err, ErrSchedule) && !errors.Is(err, ErrNeverFires) {
				t.Errorf("ParseSchedule(%q): got = %v, want an ErrSchedule or ErrNeverFires", text, err)
			}
			if stored := storedSchedule(text); stored != (Schedule{}) {
				t.Errorf("storedSchedule(%q): got = %v, want none", text, stored)
			}
			return
		}
		stored := s.String()
		again, err := ParseSchedule(stored)
		if err != nil {
			t.Fatalf("ParseSchedule(%q), the text of %q: %v", stored, text, err)
		}
		if again.String() != stored || again.Describe() != s.Describe() || again.DescribeDST() != s.DescribeDST() {
			t.Errorf("%q read back: got = %v, %s, want = %v, %s", text, again, again.Describe(), s, s.Describe())
		}
		if !utf8.ValidString(stored) || strings.ContainsFunc(stored, func(r rune) bool { return r < ' ' }) {
			t.Errorf("the stored text of %q: got = %q, want one that can be printed", text, stored)
		}
		fuzzSlots(t, text, s, again, time.Unix(sec%4e9, 0).UTC())
	})
}

// fuzzSlots compares what two readings of a schedule make of the time from
// after on, with what must hold for any schedule.
func fuzzSlots(t *testing.T, text string, s, again Schedule, after time.Time) {
	slots := s.Next(after, 4)
	if back := storedSchedule(s.String()).Next(after, 4); !slices.Equal(back, slots) || !slices.Equal(again.Next(after, 4), slots) {
		t.Errorf("%q read back, from %v: got = %v, want = %v", text, after, back, slots)
	}
	for i, at := range slots {
		if !at.After(after) {
			t.Errorf("%q: slot %d: got = %v, want one behind %v", text, i, at, after)
		}
		after = at
	}
	anchor := time.Unix(1_700_000_000, 0).UTC()
	for range 3 {
		next := s.next(anchor, after)
		if next.IsZero() {
			return
		}
		if !next.After(after) && !next.Equal(anchor) {
			t.Errorf("%q with anchor %v: got = %v, want one behind %v", text, anchor, next, after)
		}
		if got := s.between(anchor, after, next); got.count != 1 || !got.first.Equal(next) || !got.last.Equal(next) {
			t.Errorf("%q: slots from %v to %v: got = %+v, want the one", text, after, next, got)
		}
		after = next
	}
}
