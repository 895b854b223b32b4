package segno

import (
	"fmt"
	"strings"
	"time"
)

// ParseSchedule reads a schedule from text: "every 10m", "fixed delay 5m",
// "at 2026-03-08T09:00:00Z", or a cron expression as Cron takes it, with the word
// cron before it or without. Durations are those of time.ParseDuration, times
// those of RFC 3339. Behind a cron expression may stand what is not the zero
// value of DST: gap=skip, repeat=second or repeat=both. It reads whatever
// Schedule.String writes, but for the empty text of the manual schedule.
//
// The error is ErrSchedule or ErrNeverFires, and says what is wrong.
func ParseSchedule(text string) (Schedule, error) {
	s := parseSchedule(strings.Fields(text))
	if err := s.validate(); err != nil {
		return Schedule{}, err
	}
	return s, nil
}

func parseSchedule(words []string) Schedule {
	switch word := lowerAt(words, 0); {
	case word == "every":
		return parseInterval(words[1:], Every)
	case word == "fixed" && lowerAt(words, 1) == "delay":
		return parseInterval(words[2:], FixedDelay)
	case word == "at":
		return parseAt(words[1:])
	case word == "cron":
		return parseCronWords(words[1:])
	}
	return parseCronWords(words)
}

// lowerAt returns a word in lower case, "" if there are not so many.
func lowerAt(words []string, i int) string {
	if i >= len(words) {
		return ""
	}
	return strings.ToLower(words[i])
}

func badSchedule(format string, args ...any) Schedule {
	return Schedule{err: fmt.Errorf("%w: %s", ErrSchedule, fmt.Sprintf(format, args...))}
}

func parseInterval(words []string, of func(time.Duration) Schedule) Schedule {
	d, err := time.ParseDuration(strings.Join(words, ""))
	if err != nil {
		return badSchedule("%q is no duration; write one such as 90s, 10m or 1h30m", strings.Join(words, " "))
	}
	return of(d)
}

func parseAt(words []string) Schedule {
	text := strings.ToUpper(strings.Join(words, " "))
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return badSchedule("%q is no time; write one such as 2026-03-08T09:00:00Z or 2026-03-08T09:00:00+01:00", text)
	}
	return At(t)
}

// parseCronWords takes the DST rule off the end of an expression.
func parseCronWords(words []string) Schedule {
	var d DST
	for n := len(words); n > 0; n = len(words) {
		known, err := d.read(strings.ToLower(words[n-1]))
		if err != nil {
			return Schedule{err: err}
		}
		if !known {
			break
		}
		words = words[:n-1]
	}
	return Cron(strings.Join(words, " ")).withDST(d)
}

// read takes one word of the text of a rule, and reports whether it was one.
func (d *DST) read(word string) (bool, error) {
	gap, isGap := strings.CutPrefix(word, gapWord)
	repeat, isRepeat := strings.CutPrefix(word, repeatWord)
	switch {
	case isGap && gap == "after":
		d.Gap = GapRunAfter
	case isGap && gap == "skip":
		d.Gap = GapSkip
	case isGap:
		return true, fmt.Errorf("%w: %q is none of gap=after and gap=skip", ErrSchedule, word)
	case isRepeat && repeat == "first":
		d.Repeat = RepeatFirst
	case isRepeat && repeat == "second":
		d.Repeat = RepeatSecond
	case isRepeat && repeat == "both":
		d.Repeat = RepeatBoth
	case isRepeat:
		return true, fmt.Errorf("%w: %q is none of repeat=first, repeat=second and repeat=both", ErrSchedule, word)
	}
	return isGap || isRepeat, nil
}

// Zone is the zone of a cron schedule, UTC for any other.
func (s Schedule) Zone() *time.Location {
	if s.cron == nil {
		return time.UTC
	}
	return s.cron.zone
}

// Next returns the first n times after the given one at which the schedule is
// due, in UTC; fewer if there are no more, none if it is manual or not valid.
//
// It knows nothing of a flow. So an interval counts from after, as does a
// FixedDelay, whose runs are taken to last no time.
func (s Schedule) Next(after time.Time, n int) []time.Time {
	if s.validate() != nil {
		return nil
	}
	var slots []time.Time
	for t := after.UTC(); len(slots) < n; slots = append(slots, t) {
		if s.kind == interval || s.kind == fixedDelay {
			t = t.Add(s.d)
		} else if t = s.next(time.Time{}, t); t.IsZero() {
			break
		}
	}
	return slots
}
