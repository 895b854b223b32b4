package segno

import (
	"math"
	"math/bits"
	"time"
)

// robfig/cron's Next loses or repeats runs where a zone changes its clock, and can return a time
// that is not after its argument. So the next firing is computed here, in two layers: match searches
// the calendar, where every day has 24 hours, and nextWild and nextFixed take its answer to the zone.

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
// and a time that comes twice fires the first time. A date that its zone left out has no firing.
func (c *cronSpec) next(after time.Time) time.Time {
	sec := max(after.Unix(), minCronSec)
	if sec > maxCronSec {
		return time.Time{}
	}
	at, ok := int64(0), false
	if c.wild {
		at, ok = c.nextWild(sec)
	} else {
		at, ok = c.nextFixed(sec)
	}
	t := time.Unix(at, 0).UTC()
	if !ok || !t.After(after) { // a scheduler that gets a time in the past runs for ever
		return time.Time{}
	}
	return t
}

func (c *cronSpec) nextWild(sec int64) (int64, bool) {
	for sec++; ; {
		offset, end := offsetAt(c.zone, sec)
		w, ok := c.match(wall(sec + offset))
		if !ok {
			return 0, false
		}
		if at := int64(w) - offset; at < end {
			return at, true
		}
		sec = end
	}
}

func (c *cronSpec) nextFixed(sec int64) (int64, bool) {
	for w := lastShown(c.zone, sec) + 1; ; {
		var ok bool
		if w, ok = c.match(w); !ok {
			return 0, false
		}
		at := firstShown(c.zone, w)
		if !leftOut(c.zone, w, at) {
			return at, true
		}
		w = w.midnight() + dayLength
	}
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

// firstShown returns the first instant at which the zone's clocks show w or later: later if they are
// turned forward over w. It never decreases in w, and for all w after lastShown(zone, sec) it is
// after sec.
func firstShown(zone *time.Location, w wall) int64 {
	for sec := int64(w) - maxShift; ; {
		offset, end := offsetAt(zone, sec)
		if at := max(sec, int64(w)-offset); at < end {
			return at
		}
		sec = end
	}
}

// leftOut reports whether the zone has no instant in the date of w, of which at is firstShown.
func leftOut(zone *time.Location, w wall, at int64) bool {
	day := w.midnight()
	offset, _ := offsetAt(zone, at)
	return wall(at+offset) >= day+dayLength && firstShown(zone, day) == at
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
