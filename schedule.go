package segno

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Schedule says when a flow is due. The zero value is manual: only when
// triggered. It is made by Every, FixedDelay, Cron and At; what is wrong with
// it is reported when the flow is added.
type Schedule struct {
	kind scheduleKind
	d    time.Duration
	at   time.Time
	expr string
	cron *cronSpec
	err  error
}

type scheduleKind int

const (
	manual scheduleKind = iota
	interval
	fixedDelay
	cronKind
	once
)

// Every is due at anchor + k·d. The anchor is the moment of the flow's first
// registration, stored once: the flow runs at once then, and a restart keeps
// the phase. d is at least 1 ms, and kept to the microsecond.
func Every(d time.Duration) Schedule {
	return Schedule{kind: interval, d: d.Truncate(time.Microsecond), err: badInterval(d)}
}

// FixedDelay is due d after the end of the flow's last run, and at once when
// the flow is registered first. d is at least 1 ms.
func FixedDelay(d time.Duration) Schedule {
	return Schedule{kind: fixedDelay, d: d.Truncate(time.Microsecond), err: badInterval(d)}
}

// Cron is due by a cron expression of five fields, or six with leading
// seconds, or a descriptor such as @daily. "CRON_TZ=Europe/Berlin " before it
// names the zone; without it the zone is UTC. If both day fields are
// restricted, either may match.
func Cron(expr string) Schedule {
	spec, err := parseCron(expr)
	return Schedule{kind: cronKind, expr: expr, cron: spec, err: err}
}

// At is due once, at t; at once if t has passed when the flow is registered. In
// UTC its year is from 0 to 9999.
func At(t time.Time) Schedule {
	s := Schedule{kind: once, at: instant(t)}
	switch year := s.at.Year(); {
	case t.IsZero():
		s.err = fmt.Errorf("%w: At the zero time", ErrSchedule)
	case year < 0 || year > 9999: // RFC 3339, as which it is stored, has no such year
		s.err = fmt.Errorf("%w: At a time in the year %d; the last is 9999", ErrSchedule, year)
	}
	return s
}

func badInterval(d time.Duration) error {
	if d < time.Millisecond {
		return fmt.Errorf("%w: an interval of %v; the shortest is 1ms", ErrSchedule, d)
	}
	return nil
}

// String is the schedule as it is stored and listed, and as ParseSchedule reads
// it; "" is manual.
func (s Schedule) String() string {
	switch s.kind {
	case interval:
		return "every " + s.d.String()
	case fixedDelay:
		return "fixed delay " + s.d.String()
	case cronKind:
		if s.cron == nil {
			return "cron " + s.expr
		}
		return strings.TrimSpace("cron " + s.cron.String() + " " + s.cron.dst.String())
	case once:
		return "at " + s.at.Format(time.RFC3339Nano)
	}
	return ""
}

// storedSchedule reads a schedule back from what String made of it; one that an
// older program wrote and this one cannot read has no slots.
func storedSchedule(text string) Schedule {
	s, err := ParseSchedule(text)
	if err != nil {
		return Schedule{}
	}
	return s
}

// validate returns what is wrong with the schedule.
func (s Schedule) validate() error {
	if s.err != nil && !errors.Is(s.err, ErrSchedule) && !errors.Is(s.err, ErrNeverFires) {
		return fmt.Errorf("%w: %w", ErrSchedule, s.err)
	}
	return s.err
}

// next returns the first slot after t, the zero time if there is none. anchor
// is that of an interval's grid. A FixedDelay has no slots of its own: its next
// one follows from the end of a run.
func (s Schedule) next(anchor, t time.Time) time.Time {
	switch s.kind {
	case interval:
		if t.Before(anchor) {
			return anchor
		}
		return s.onGrid(anchor, t, 1)
	case cronKind:
		return s.cron.next(t)
	case once:
		if t.Before(s.at) {
			return s.at
		}
	}
	return time.Time{}
}

// onGrid returns the nth point of an interval's grid behind the last one up to
// t. It counts in microseconds: a time.Duration ends after 292 years.
func (s Schedule) onGrid(anchor, t time.Time, n int64) time.Time {
	at, d := t.UnixMicro(), s.d.Microseconds()
	return time.UnixMicro(at - (at-anchor.UnixMicro())%d + n*d).UTC()
}

// stretch is a number of slots in a row.
type stretch struct {
	first, last time.Time
	count       int
}

// slotCap bounds how many cron slots are counted one by one. Beyond it the
// stretch goes on to its true end, and the count stays.
const slotCap = 1_000_000

// between returns the slots in (after, upto].
func (s Schedule) between(anchor, after, upto time.Time) stretch {
	first := s.next(anchor, after)
	if first.IsZero() || first.After(upto) {
		return stretch{}
	}
	if s.kind == interval {
		n := (upto.UnixMicro() - first.UnixMicro()) / s.d.Microseconds()
		return stretch{first: first, last: s.onGrid(first, upto, 0), count: int(n) + 1}
	}
	st := stretch{first: first, last: first, count: 1}
	for st.count < slotCap {
		next := s.next(anchor, st.last)
		if next.IsZero() || next.After(upto) {
			return st
		}
		st.last = next
		st.count++
	}
	st.last = s.newest(anchor, st.last, upto)
	return st
}

// newest returns the last slot up to the given time; low is one.
func (s Schedule) newest(anchor, low, upto time.Time) time.Time {
	for high := upto; ; {
		next := s.next(anchor, low)
		if next.IsZero() || next.After(upto) {
			return low
		}
		low = next
		for half := low.Add(high.Sub(low) / 2); half.After(low); half = low.Add(high.Sub(low) / 2) {
			if next = s.next(anchor, half); next.IsZero() || next.After(upto) {
				high = half
				continue
			}
			low = next
		}
	}
}
