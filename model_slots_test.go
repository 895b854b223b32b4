package segno

import (
	"sort"
	"sync"
	"testing"
	"time"
)

// The model knows the slots of a schedule by looking at every minute of the
// time in which it plays, and by counting.

var (
	modelFrom = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	modelTo   = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
)

// modelCron is an expression, and what it means in plain Go.
type modelCron struct {
	expr, zone string
	wild       bool // fires whenever the clock on the wall matches
	matches    func(wall time.Time) bool
	slots      func() []time.Time
}

// modelCrons are expressions with a change of the clock in their way.
func modelCrons() []*modelCron {
	list := []*modelCron{
		{expr: "*/15 * * * *", zone: "UTC", wild: true, matches: func(w time.Time) bool { return w.Minute()%15 == 0 }},
		{expr: "0 9 * * MON-FRI", zone: "UTC", matches: func(w time.Time) bool {
			return w.Hour() == 9 && w.Minute() == 0 && w.Weekday() != time.Saturday && w.Weekday() != time.Sunday
		}},
		{expr: "30 1,2,3 * * *", zone: "America/New_York", matches: func(w time.Time) bool {
			return w.Minute() == 30 && w.Hour() >= 1 && w.Hour() <= 3
		}},
		{expr: "15,45 2 * * *", zone: "Europe/Berlin", matches: func(w time.Time) bool { return w.Hour() == 2 && w.Minute()%30 == 15 }},
		{expr: "15 */2 * * *", zone: "Europe/Berlin", wild: true, matches: func(w time.Time) bool { return w.Hour()%2 == 0 && w.Minute() == 15 }},
		{expr: "0 2 * * *", zone: "Australia/Lord_Howe", matches: func(w time.Time) bool { return w.Hour() == 2 && w.Minute() == 0 }},
		{expr: "0 12 13 * FRI", zone: "Africa/Cairo", matches: func(w time.Time) bool {
			return w.Hour() == 12 && w.Minute() == 0 && (w.Day() == 13 || w.Weekday() == time.Friday)
		}},
	}
	for _, c := range list {
		c.slots = sync.OnceValue(c.look)
	}
	return list
}

func (c *modelCron) schedule() Schedule { return Cron("CRON_TZ=" + c.zone + " " + c.expr) }

// look finds all slots. A wild expression fires at each minute whose clock
// matches; any other as soon as the clock shows a matching time, or one behind
// it, that it has not shown before.
func (c *modelCron) look() (slots []time.Time) {
	zone, err := time.LoadLocation(c.zone)
	if err != nil {
		return nil
	}
	shown := time.Time{}
	for at := modelFrom.AddDate(0, 0, -2); at.Before(modelTo); at = at.Add(time.Minute) {
		in := at.In(zone)
		wall := time.Date(in.Year(), in.Month(), in.Day(), in.Hour(), in.Minute(), 0, 0, time.UTC)
		fires := c.wild && c.matches(wall)
		if !c.wild && !shown.IsZero() {
			for w := shown.Add(time.Minute); !w.After(wall); w = w.Add(time.Minute) {
				fires = fires || c.matches(w)
			}
		}
		if wall.After(shown) {
			shown = wall
		}
		if fires {
			slots = append(slots, at)
		}
	}
	return slots
}

// after returns the first slot after t.
func (c *modelCron) after(t time.Time) time.Time {
	slots := c.slots()
	i := sort.Search(len(slots), func(i int) bool { return slots[i].After(t) })
	if i == len(slots) {
		return time.Time{}
	}
	return slots[i]
}

func TestModelCrons(t *testing.T) {
	t.Parallel()
	for _, c := range modelCrons() {
		s := c.schedule()
		if err := s.validate(); err != nil {
			t.Fatal(err)
		}
		at := modelFrom.Add(-time.Second)
		for _, want := range c.slots() {
			if want.Before(modelFrom) {
				continue
			}
			if at = s.cron.next(at); !at.Equal(want) {
				t.Errorf("%s: got slot %v, want %v", s, at, want)
				break
			}
		}
	}
}
