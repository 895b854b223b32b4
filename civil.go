package segno

import (
	"math"
	"math/bits"
	"time"
)

// robfig/cron's Next loses or repeats runs where a zone changes its clock, and can return a time
// that is not after its argument. So the next firing is computed here, in two layers: match searches
// the calendar, where every day has 24 hours, and search takes its answer to the zone.

// A wall is what a clock on the wall shows, in seconds since it showed 1970-01-01 00:00:00. It is
// read as if it were UTC, so that calendar arithmetic meets no gap and no repeated hour.
type wall int64

const (
	maxCronYear = 9999 // the last that RFC 3339 can write
	dayLength   = 86400

	// maxShift is more than any zone is off UTC, and than any zone has ever moved its clock: a day,
	// by crossing the date line.
	maxShift = 2 * dayLength
)

var (
	minCronSec = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxCronSec = time.Date(maxCronYear, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

// next returns the first firing strictly after the given time, in UTC, or the zero time if there is
// none up to the year 9999.
//
// A wild spec fires at every instant whose wall clock matches: it counts real time, so a skipped hour
// has none and a repeated hour has them twice. Any other spec fires once for each match of the
// calendar: a time inside a gap fires at the first instant after it, one with all others in that gap,
// and a time that comes twice fires the first time, unless its DST rule says otherwise. A date that
// its zone left out has no firing.
func (c *cronSpec) next(after time.Time) time.Time {
	sec := max(after.Unix(), minCronSec)
	if sec > maxCronSec {
		return time.Time{}
	}
	at, ok := c.search(sec + 1)
	t := time.Unix(at, 0).UTC()
	if !ok || !t.After(after) { // a scheduler that gets a time in the past runs for ever
		return time.Time{}
	}
	return t
}

// search returns the first firing at sec or later. It walks the spans between changes of the zone's
// clock, and past those that the calendar has nothing for.
func (c *cronSpec) search(sec int64) (int64, bool) {
	for {
		offset, end := offsetAt(c.zone, sec)
		w, ok := c.match(c.begin(sec, offset))
		if !ok {
			return 0, false
		}
		if w < wall(sec+offset) { // in the gap that ends at sec
			return sec, true
		}
		at := int64(w) - offset
		switch {
		case at < end && c.rule().Repeat == RepeatSecond:
			if sec, ok = c.beforeLast(at, offset, end); !ok {
				return at, true
			}
		case at < end:
			return at, true
		case end-sec < maxShift: // what comes next may show times before the present one
			sec = end
		default:
			sec = max(end, int64(w)-maxShift)
		}
	}
}

// begin returns the wall clock time from which on a match fires at sec or later in its span: what
// the clock shows at sec, unless the rule has an eye on what it skipped just before, or has shown.
func (c *cronSpec) begin(sec, offset int64) wall {
	shown, rule := wall(sec+offset), c.rule()
	if rule == realTime {
		return shown
	}
	fresh := lastShown(c.zone, sec-1) + 1
	switch {
	case fresh < shown && rule.Gap == GapRunAfter:
		return c.skipped(fresh, shown)
	case fresh > shown && rule.Repeat == RepeatFirst:
		return fresh
	}
	return shown
}

// skipped returns the first match in the gap between two wall clock times, the second of them if
// there is none. A date that lies in the gap as a whole does not exist.
func (c *cronSpec) skipped(from, to wall) wall {
	for w := from; ; {
		var ok bool
		if w, ok = c.match(w); !ok || w >= to {
			return to
		}
		day := w.midnight()
		if day < from || day+dayLength > to {
			return w
		}
		w = day + dayLength
	}
}

// beforeLast reports whether the clock shows again what it shows at the instant at, of a span with
// the given offset and end. If so, it returns the next instant that may be the last to show its time.
func (c *cronSpec) beforeLast(at, offset, end int64) (next int64, again bool) {
	ahead, until, again := shownAgain(c.zone, wall(at+offset), end)
	if again && end-1+offset-ahead < until { // so is all that is left of the span
		return end, true
	}
	return at + 1, again
}

// shownAgain looks for a span, from the instant sec on, in which the zone's clocks show w, and
// returns its offset and end.
func shownAgain(zone *time.Location, w wall, sec int64) (offset, end int64, ok bool) {
	for sec < int64(w)+maxShift {
		offset, end = offsetAt(zone, sec)
		if at := int64(w) - offset; sec <= at && at < end {
			return offset, end, true
		}
		sec = end
	}
	return 0, 0, false
}

// lastShown returns the latest time that the zone's clocks have shown up to the instant sec. It is
// later than what they show now if they were just turned back.
func lastShown(zone *time.Location, sec int64) wall {
	from := sec - maxShift
	last := int64(math.MinInt64)
	for from <= sec {
		offset, end := offsetAt(zone, from)
		last = max(last, min(sec, end-1)+offset)
		from = end
	}
	return wall(last)
}

// offsetAt returns how far the zone is ahead of UTC at the instant sec, and an instant up to which it
// stays so. Beyond the table in the zone file, where a rule takes over, time.ZoneBounds is not to be
// relied on (Go 1.26): it starts a span before the last change in the table, so only its end is used,
// and it ends every year after 365 days, which on 31 December of a leap year is in the past.
func offsetAt(zone *time.Location, sec int64) (offset, end int64) {
	t := time.Unix(sec, 0).In(zone)
	_, ahead := t.Zone()
	_, bound := t.ZoneBounds()
	if bound.IsZero() {
		return int64(ahead), math.MaxInt64
	}
	end = bound.Unix()
	if end <= sec {
		end = (sec/dayLength + 1) * dayLength // no rule changes a clock on that day
	}
	return int64(ahead), end
}

func (w wall) midnight() wall {
	return w - ((w%dayLength)+dayLength)%dayLength
}

// match returns the first wall clock time that matches, w or later.
func (c *cronSpec) match(w wall) (wall, bool) {
	t := time.Unix(int64(w), 0).UTC()
	for {
		day, ok := c.matchDate(t)
		if !ok {
			return 0, false
		}
		h, m, s := 0, 0, 0
		if !day.After(t) { // t's own date
			h, m, s = t.Clock()
		}
		if d, ok := c.matchClock(h, m, s); ok {
			return wall(day.Unix() + d), true
		}
		t = day.AddDate(0, 0, 1)
	}
}

// possible reports whether any date matches. The calendar repeats itself after 400 years.
func (c *cronSpec) possible() bool {
	_, ok := c.matchDate(time.Unix(0, 0).UTC())
	return ok
}

// matchDate returns the midnight of the first matching date, that of t or a later one.
func (c *cronSpec) matchDate(t time.Time) (time.Time, bool) {
	year, month, day := t.Date()
	for last := min(year+400, maxCronYear); year <= last; {
		if days := c.days(year, month) >> day << day; days != 0 {
			return time.Date(year, month, bits.TrailingZeros64(days), 0, 0, 0, 0, time.UTC), true
		}
		day = 1
		if month++; month > time.December {
			year, month = year+1, time.January
		}
	}
	return time.Time{}, false
}

// days returns the matching days of a month, bit 1 for the first.
func (c *cronSpec) days(year int, month time.Month) uint64 {
	if c.month&(1<<month) == 0 {
		return 0
	}
	const everyWeek = 1 | 1<<7 | 1<<14 | 1<<21 | 1<<28 | 1<<35
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	length := first.AddDate(0, 1, -1).Day()
	weekdays := c.dow * everyWeek >> first.Weekday() << 1
	days := c.dom & weekdays
	if c.orDays {
		days = c.dom | weekdays
	}
	return days & (1<<(length+1) - 2)
}

// matchClock returns the first matching time of day, h:m:s or later, in seconds.
func (c *cronSpec) matchClock(h, m, s int) (int64, bool) {
	clock := func(h, m, s int) (int64, bool) { return int64(h*3600 + m*60 + s), true }
	if c.hour&(1<<h) != 0 {
		if c.minute&(1<<m) != 0 {
			if s := bitFrom(c.second, s); s < 64 {
				return clock(h, m, s)
			}
		}
		if m := bitFrom(c.minute, m+1); m < 64 {
			return clock(h, m, bitFrom(c.second, 0))
		}
	}
	if h := bitFrom(c.hour, h+1); h < 64 {
		return clock(h, bitFrom(c.minute, 0), bitFrom(c.second, 0))
	}
	return 0, false
}

// bitFrom returns the lowest bit set in set that is not below i, 64 if there is none.
func bitFrom(set uint64, i int) int {
	return bits.TrailingZeros64(set >> i << i)
}
