package segno

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno/testdata"
)

// zonesLong reports whether the whole of the tests here is asked for, not a sample.
func zonesLong() bool { return os.Getenv("SEGNO_LONG") != "" }

// A zoneChange is a day on which a zone changes its clock, and when a spec fires on it, asked a day
// before or on the date given. A list that ends in "..." is a prefix.
type zoneChange struct{ zone, date, spec, asked, want string }

// Table 4.2 of the scheduling spec, row by row; a row of two dates or several specs takes as many lines.
func TestTable42(t *testing.T) {
	tests := []zoneChange{
		{"America/New_York", "2026-03-08", "0 2 * * *", "", "03:00-04:00"},
		{"America/New_York", "2026-03-08", "30 2 * * *", "", "03:00-04:00"},
		{"America/New_York", "2026-11-01", "30 1 * * *", "", "01:30-04:00"},
		{"America/New_York", "2026-03-08", "30 1,2,3 * * *", "", "01:30-05:00 03:00-04:00 03:30-04:00"},
		{"America/New_York", "2026-11-01", "30 0,1,2 * * *", "", "00:30-04:00 01:30-04:00 02:30-05:00"},
		{"Europe/Berlin", "2026-03-29", "30 2 * * *", "", "03:00+02:00"},
		{"Europe/Berlin", "2026-10-25", "30 2 * * *", "", "02:30+02:00"},
		{"Australia/Lord_Howe", "2026-10-04", "15 2 * * *", "", "02:30+11:00"},
		{"Australia/Lord_Howe", "2026-04-05", "45 1 * * *", "", "01:45+11:00"},
		{"Australia/Lord_Howe", "2026-04-05", "0 2 * * *", "", "02:00+10:30"},
		{"Australia/Lord_Howe", "2026-04-05", "0 3 * * *", "", "03:00+10:30"},
		{"Pacific/Chatham", "2026-04-05", "45 3 * * *", "", "03:45+12:45"},
		{"America/New_York", "2026-03-08", "0 */2 * * *", "", "00:00-05:00 04:00-04:00 06:00-04:00..."},
		{"Africa/Cairo", "2026-04-24", "0 12 * * 5", "2026-04-18", "12:00+03:00"},
		{"Asia/Beirut", "2026-03-29", "0 12 * * 0", "2026-03-23", "12:00+03:00"},
		{"Africa/Cairo", "2026-04-24", "0 9 24 4 *", "2025-05-01", "09:00+03:00"},
		{"Australia/Lord_Howe", "2026-04-05", "0 9 * * *", "", "09:00+10:30"},
		{"America/New_York", "2026-03-08", "0 * * * *", "", "00:00-05:00 01:00-05:00 03:00-04:00 04:00-04:00 05:00-04:00..."},
		{"America/New_York", "2026-11-01", "0 * * * *", "", "00:00-04:00 01:00-04:00 01:00-05:00 02:00-05:00 03:00-05:00..."},
		{"Europe/Berlin", "2026-03-29", "0 * * * *", "", "00:00+01:00 01:00+01:00 03:00+02:00 04:00+02:00..."},
		{"Europe/Berlin", "2026-10-25", "0 * * * *", "", "00:00+02:00 01:00+02:00 02:00+02:00 02:00+01:00 03:00+01:00..."},
		{"Australia/Lord_Howe", "2026-10-04", "0 * * * *", "", "00:00+10:30 01:00+10:30 03:00+11:00 04:00+11:00..."},
		{"Australia/Lord_Howe", "2026-10-04", "15 * * * *", "", "00:15+10:30 01:15+10:30 03:15+11:00..."},
		{"Australia/Lord_Howe", "2026-10-04", "30 * * * *", "", "00:30+10:30 01:30+10:30 02:30+11:00 03:30+11:00..."},
		{"Australia/Lord_Howe", "2026-04-05", "0 * * * *", "", "00:00+11:00 01:00+11:00 02:00+10:30 03:00+10:30..."},
		{"Australia/Lord_Howe", "2026-04-05", "45 * * * *", "", "00:45+11:00 01:45+11:00 01:45+10:30 02:45+10:30..."},
		{"America/Santiago", "2026-09-06", "0 0 * * *", "", "01:00-03:00"},
		{"America/Havana", "2026-11-01", "0 0 * * *", "", "00:00-04:00"},
	}
	for _, tt := range tests {
		tt.run(t)
	}
}

// Beyond the table: a date that does not exist and its neighbours, and changes that cross midnight.
func TestCronZoneChanges(t *testing.T) {
	tests := []zoneChange{
		{"Pacific/Apia", "2011-12-30", "30 3 * * *", "", ""},
		{"Pacific/Apia", "2011-12-29", "30 3 * * *", "", "03:30-10:00"},
		{"Pacific/Apia", "2011-12-31", "30 3 * * *", "", "03:30+14:00"},
		{"Pacific/Apia", "2011-12-31", "0 0 * * *", "", "00:00+14:00"},
		// Clocks of Saint John's went back at 00:01, into the day before.
		{"America/St_Johns", "2010-11-07", "0,30 0,23 * * *", "", "00:00-02:30 00:30-03:30 23:00-03:30 23:30-03:30"},
		// Toronto's clocks went from 23:30 to 00:30: the date before ends early, but exists.
		{"America/Toronto", "1919-03-31", "45 23 * * *", "", "00:30-04:00 23:45-04:00"},
		{"America/St_Johns", "2010-11-06", "30 23 * * *", "", "23:30-02:30"},
	}
	for _, tt := range tests {
		tt.run(t)
	}
}

func (tt zoneChange) run(t *testing.T) {
	t.Run(strings.ReplaceAll(tt.zone+" "+tt.date+" "+tt.spec, "/", "|"), func(t *testing.T) {
		c := mustCron(t, "CRON_TZ="+tt.zone+" "+tt.spec)
		from := cronTime(t, tt.zone, tt.date+" 00:00:00").Add(-26 * time.Hour)
		if tt.asked != "" {
			from = cronTime(t, tt.zone, tt.asked+" 00:00:00")
		}
		var fired []string
		for at := c.next(from); at.In(c.zone).Format(time.DateOnly) <= tt.date; at = c.next(at) {
			if at.In(c.zone).Format(time.DateOnly) == tt.date {
				fired = append(fired, at.In(c.zone).Format("15:04-07:00"))
			}
		}
		got := strings.Join(fired, " ")
		prefix, more := strings.CutSuffix(tt.want, "...")
		if got != tt.want && !(more && strings.HasPrefix(got, prefix)) {
			t.Errorf("got = %s, want = %s", got, tt.want)
		}
	})
}

// A cronOracle says by itself when a spec fires, without the code under test.
type cronOracle struct {
	spec  string
	date  func(time.Time) bool  // nil: every date
	clock []int                 // a fixed-time spec: minutes of the day
	every func(minute int) bool // a wild spec: whether it matches this minute of the day
}

var cronOracles = []cronOracle{
	{spec: "0 0 * * *", clock: []int{0}},
	{spec: "30 0 * * *", clock: []int{30}},
	{spec: "30 1 * * *", clock: []int{90}},
	{spec: "0 2 * * *", clock: []int{120}},
	{spec: "15 2 * * *", clock: []int{135}},
	{spec: "45 2 * * *", clock: []int{165}},
	{spec: "45 3 * * *", clock: []int{225}},
	{spec: "0 9 * * *", clock: []int{540}},
	{spec: "59 23 * * *", clock: []int{1439}},
	{spec: "0,30 0-3,23 * * *", clock: []int{0, 30, 60, 90, 120, 150, 180, 210, 1380, 1410}},
	{spec: "0 12 * * 5", clock: []int{720}, date: func(d time.Time) bool { return d.Weekday() == time.Friday }},
	{spec: "30 2 * * 7,6", clock: []int{150}, date: func(d time.Time) bool { return d.Weekday()%6 == 0 }},
	{spec: "30 2 1-7 * 0", clock: []int{150}, date: func(d time.Time) bool { return d.Day() <= 7 || d.Weekday() == 0 }},
	{spec: "30 0 */2 * *", clock: []int{30}, date: func(d time.Time) bool { return d.Day()%2 == 1 }},
	{spec: "45 * * * *", every: func(m int) bool { return m%60 == 45 }},
	{spec: "*/20 2 * * *", every: func(m int) bool { return m/60 == 2 && m%20 == 0 }},
	{spec: "30 */2 * * *", every: func(m int) bool { return m/60%2 == 0 && m%60 == 30 }},
}

// cronRules are all rules; the first is the usual one.
var cronRules = []DST{
	{}, {GapSkip, RepeatFirst}, {GapRunAfter, RepeatSecond}, {GapSkip, RepeatSecond}, {GapRunAfter, RepeatBoth}, {GapSkip, RepeatBoth},
}

func TestCronAtEveryChangeOfNastyZones(t *testing.T) {
	years := []int{2011, 2026}
	if zonesLong() {
		years = []int{1993, 1994, 2011, 2026, 2040}
	}
	for _, zone := range []string{"Australia/Lord_Howe", "Pacific/Chatham", "Africa/Cairo", "Asia/Beirut", "Pacific/Apia",
		"Pacific/Kiritimati", "Pacific/Kwajalein", "America/Havana", "America/Santiago", "America/New_York", "Europe/Berlin",
		"Africa/Casablanca", "Antarctica/Troll"} {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			z := newCronZone(t, zone)
			for _, at := range clockChanges(z.zone, years) {
				z.check(t, at, cronRules)
			}
		})
	}
}

// Every zone that differs from the others, around each change of its clock. What is checked is a
// sample of the zones and years, by SEGNO_LONG all.
func TestZones(t *testing.T) { checkZones(t, 25, []int{2005, 2019}) }

func TestLongZones(t *testing.T) {
	if !zonesLong() {
		t.Skip("set SEGNO_LONG=1 to run it")
	}
	var years []int
	for year := 2000; year <= 2037; year++ {
		years = append(years, year)
	}
	checkZones(t, 1, years)
}

// checkZones checks one zone of every nth in the given years: the usual rule at each change, and the
// others in turn.
func checkZones(t *testing.T, nth int, years []int) {
	names := zoneNames(t)
	known := map[string]bool{}
	for i := 0; i < len(names); i += nth {
		z := newCronZone(t, names[i])
		changes := clockChanges(z.zone, years)
		if key := offsetsAt(z.zone, changes); !known[key] { // an alias would show nothing new
			known[key] = true
			t.Run(names[i], func(t *testing.T) {
				t.Parallel()
				for i, at := range changes {
					z.check(t, at, []DST{{}, cronRules[1+i%5]})
				}
				z.checkDates(t, years)
			})
		}
	}
	t.Logf("%d zones of %d names", len(known), (len(names)+nth-1)/nth)
}

// zoneNames returns the names of all zones and links in the time zone database.
func zoneNames(t *testing.T) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(testdata.Tzdata) {
		switch f := strings.Fields(line); {
		case len(f) > 2 && f[0] == "Z":
			names = append(names, f[1])
		case len(f) == 3 && f[0] == "L":
			names = append(names, f[2])
		}
	}
	if len(names) < 500 {
		t.Fatalf("got = %d zones, want all", len(names))
	}
	return names
}

// offsetsAt tells zones apart.
func offsetsAt(zone *time.Location, changes []time.Time) string {
	var b strings.Builder
	for _, at := range changes {
		_, before := at.In(zone).Zone()
		_, after := at.Add(changeStep).In(zone).Zone()
		fmt.Fprintln(&b, at.Unix(), before, after)
	}
	return b.String()
}

// A cronZone has all oracles' specs in one zone.
type cronZone struct {
	zone  *time.Location
	specs []*cronSpec
}

func newCronZone(t *testing.T, name string) *cronZone {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return cronZoneOf(t, zone)
}

func cronZoneOf(t *testing.T, zone *time.Location) *cronZone {
	t.Helper()
	z := &cronZone{zone: zone}
	for _, o := range cronOracles {
		c := mustCron(t, o.spec)
		c.zone = zone
		z.specs = append(z.specs, c)
	}
	return z
}

// check asks all specs around a time, under each rule if they have one.
func (z *cronZone) check(t *testing.T, at time.Time, rules []DST) {
	t.Helper()
	w := newCronWindow(z.zone, at)
	for i, o := range cronOracles {
		for _, rule := range rules {
			c := *z.specs[i]
			if c.dst = rule; o.every != nil && rule != rules[0] {
				continue
			}
			w.check(t, &c, o)
		}
	}
}

// checkDates walks through years: a time of day fires once on each date that the zone has.
func (z *cronZone) checkDates(t *testing.T, years []int) {
	t.Helper()
	for i, o := range cronOracles {
		if len(o.clock) != 1 || o.date != nil || i%3 != 0 {
			continue
		}
		c := z.specs[i]
		for _, year := range years {
			from := time.Date(year, 1, 1, 0, 0, 0, 0, z.zone).Add(-time.Second)
			var got []string
			for at := c.next(from); at.In(z.zone).Year() == year; at = c.next(at) {
				got = append(got, at.In(z.zone).Format(time.DateOnly))
			}
			if want := z.dates(year); !slices.Equal(got, want) {
				t.Fatalf("%s in %s, %d: got = %q, want %q", c, z.zone, year, got, want)
			}
		}
	}
}

// dates returns the dates of a year that the zone's clocks have shown.
func (z *cronZone) dates(year int) []string {
	var dates []string
	for at := time.Date(year, 1, 1, 12, 0, 0, 0, z.zone); at.Year() == year; at = at.Add(12 * time.Hour) {
		dates = append(dates, at.Format(time.DateOnly))
	}
	return slices.Compact(dates)
}

// Zone files end their table early and leave the rest to a rule, where time.ZoneBounds errs. Many
// systems have files whose table goes on to 2037, so this test makes its own: a last change in
// November 2022, then the rule.
func TestCronZoneFileWithRule(t *testing.T) {
	words := func(n ...int32) (b []byte) {
		for _, n := range n {
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		}
		return b
	}
	zone, err := time.LoadLocationFromTZData("Test/Rule", slices.Concat(
		[]byte("TZif2"), make([]byte, 15), words(0, 0, 0, 0, 0, 0), // no table for old readers
		[]byte("TZif2"), make([]byte, 15), words(0, 0, 0, 1, 2, 8), // 1 change, 2 offsets, 8 bytes of names
		words(0, 1669788000), []byte{1}, // 2022-11-30 06:00 UTC: to the second offset
		words(-6*3600), []byte{0, 0}, words(-7*3600), []byte{0, 4},
		[]byte("CST\x00MST\x00\nMST7MDT,M3.2.0,M11.1.0\n"),
	))
	if err != nil {
		t.Fatal(err)
	}
	z := cronZoneOf(t, zone)
	for _, at := range clockChanges(zone, []int{2022, 2023, 2024}) {
		z.check(t, at, cronRules)
	}
}

// changeStep is less than the time between any two changes of a clock.
const changeStep = 6 * time.Hour

// clockChanges returns times near each change of the zone's clock, and the last of each December.
func clockChanges(zone *time.Location, years []int) []time.Time {
	var near []time.Time
	for _, year := range years {
		end := time.Date(year, 12, 31, 12, 0, 0, 0, time.UTC)
		near = append(near, end)
		t := end.AddDate(-1, 0, 0)
		for _, before := t.In(zone).Zone(); t.Before(end); t = t.Add(changeStep) {
			_, after := t.Add(changeStep).In(zone).Zone()
			if after != before {
				near = append(near, t)
			}
			before = after
		}
	}
	return near
}

// A cronWindow holds what the clock on the wall shows at each minute of five days.
type cronWindow struct {
	start int64   // Unix minute of walls[0]
	walls []int64 // what the clock shows, in minutes
	low   int64   // the least of walls
	shown []span  // of each minute from low on
	dates []int64 // days that walls has, ascending
}

// A span says where in walls a minute comes first and last. One that never comes is gone, and has
// the place after the gap over it.
type span struct {
	first, last int32
	here, gone  bool
}

func newCronWindow(zone *time.Location, at time.Time) *cronWindow {
	const half = 60 * 60
	w := &cronWindow{start: at.Unix()/60 - half}
	for i := range 2 * half {
		_, offset := time.Unix((w.start+int64(i))*60, 0).In(zone).Zone()
		w.walls = append(w.walls, w.start+int64(i)+int64(offset)/60)
	}
	w.low = slices.Min(w.walls)
	w.shown = make([]span, slices.Max(w.walls)-w.low+1)
	for i, wall := range w.walls {
		s := &w.shown[wall-w.low]
		if !s.here {
			s.here, s.first = true, int32(i)
		}
		s.last = int32(i)
		if day := wall / (24 * 60); i == 0 || w.walls[i-1]/(24*60) != day {
			w.dates = append(w.dates, day)
		}
	}
	for i := 1; i < len(w.walls); i++ {
		for wall := w.walls[i-1] + 1; wall < w.walls[i]; wall++ {
			if s := &w.shown[wall-w.low]; !s.here && !s.gone {
				s.gone, s.first = true, int32(i)
			}
		}
	}
	slices.Sort(w.dates)
	w.dates = slices.Compact(w.dates)
	return w
}

// fires returns the places in walls at which o fires under a rule.
func (w *cronWindow) fires(o cronOracle, rule DST) []int {
	var at []int
	if o.every != nil {
		for i, m := range w.walls {
			if o.every(int(m % (24 * 60))) {
				at = append(at, i)
			}
		}
		return at
	}
	for _, d := range w.dates {
		if o.date != nil && !o.date(time.Unix(d*86400, 0).UTC()) {
			continue
		}
		for _, m := range o.clock {
			if i := d*24*60 + int64(m) - w.low; i >= 0 && i < int64(len(w.shown)) {
				at = append(at, w.shown[i].fires(rule)...)
			}
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// fires returns the places at which a match of this minute fires.
func (s span) fires(rule DST) []int {
	first, last := int(s.first), int(s.last)
	switch {
	case s.gone && rule.Gap == GapRunAfter:
		return []int{first}
	case !s.here:
		return nil
	case rule.Repeat == RepeatFirst:
		return []int{first}
	case rule.Repeat == RepeatSecond:
		return []int{last}
	}
	return []int{first, last}
}

// check asks c at each firing and at minutes in between, in the inner part of the window, where the
// oracle sees both sides of every gap.
func (w *cronWindow) check(t *testing.T, c *cronSpec, o cronOracle) {
	const margin, step = 26 * 60, 31
	from, end := margin, len(w.walls)-margin
	for _, want := range w.fires(o, c.dst) {
		for ; from < want && want < end; from += min(step, want-from) {
			at, want := w.time(from), w.time(want)
			if got := c.next(at); !got.Equal(want) {
				t.Fatalf("%s: next(%s): got = %s, want = %s", c, at.In(c.zone), got.In(c.zone), want.In(c.zone))
			}
		}
	}
	if got := c.next(w.time(from)); got.Before(w.time(end)) {
		t.Errorf("%s: next(%s): got = %s, want it after %s", c, w.time(from), got, w.time(end))
	}
}

func (w *cronWindow) time(i int) time.Time {
	return time.Unix((w.start+int64(i))*60, 0)
}
