package segno

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Describe says the schedule in words: "at 02:30 every day, America/New_York",
// "at minute 0 past every hour", "at 09:00 on day 1 of the month or on a Monday,
// UTC", "every 10 minutes", "only when triggered". Of a schedule that is not
// valid it returns what is wrong with it. The wording is for people, and may
// change with a release.
func (s Schedule) Describe() string {
	if err := s.validate(); err != nil {
		return err.Error()
	}
	switch s.kind {
	case interval:
		words := durationWords(s.d)
		if unit, ok := strings.CutPrefix(words, "1 "); ok && !strings.Contains(unit, " ") {
			words = unit
		}
		return "every " + words
	case fixedDelay:
		return durationWords(s.d) + " after the end of the last run"
	case cronKind:
		return s.cron.words()
	case once:
		return "once, at " + s.at.Format("2006-01-02 15:04:05.999999999 UTC")
	}
	return "only when triggered"
}

// durationWords is a duration in words, "1 hour 30 minutes".
func durationWords(d time.Duration) string {
	if d%time.Second != 0 {
		return d.String()
	}
	var words []string
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		n := d / u.d
		if d %= u.d; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, plural(u.name, n != 1)))
		}
	}
	return strings.Join(words, " ")
}

func plural(word string, many bool) string {
	if many {
		return word + "s"
	}
	return word
}

// enumerate writes "a, b and c".
func enumerate(words []string, and string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " " + and + " " + words[last]
}

// fields returns the canonical text of all six fields.
func (c *cronSpec) fields() []string {
	fields := strings.Fields(c.text)
	if len(fields) == 5 {
		fields = slices.Insert(fields, 0, "0")
	}
	return fields
}

// words is the spec in words.
func (c *cronSpec) words() string {
	f := c.fields()
	text, anyHour := c.timeWords(f[0], f[1], f[2]), f[2] == "*"
	days := c.dayWords(f[3], f[4], f[5])
	if days != "" {
		text += " " + days
	} else if !anyHour {
		text += " every day"
	}
	if f[4] != "*" && days == "" {
		text += " in " + c.monthWords()
	}
	if c.zone != time.UTC || !anyHour || days != "" || f[4] != "*" { // else UTC is of no account
		text += ", " + c.zone.String()
	}
	return text + c.dst.words()
}

// DescribeDST says in words what the schedule does where its zone changes the
// clock, as Describe says when it is due.
func (s Schedule) DescribeDST() string {
	switch {
	case s.cron == nil:
		return "counts real time"
	case s.cron.zone == time.UTC:
		return "none in UTC"
	case s.cron.wild:
		return "counts real time: no run for a time that the clock skips, one each for a time that comes twice"
	}
	gap, repeat := "runs behind the gap", "runs the first time"
	if s.cron.dst.Gap == GapSkip {
		gap = "is left out"
	}
	switch s.cron.dst.Repeat {
	case RepeatSecond:
		repeat = "runs the second time"
	case RepeatBoth:
		repeat = "runs both times"
	}
	return "a time that the clock skips " + gap + ", a time that comes twice " + repeat
}

// words is what a rule adds to the words of a schedule.
func (d DST) words() string {
	var words []string
	if d.Gap == GapSkip {
		words = append(words, "a time that the clock skips is left out")
	}
	switch d.Repeat {
	case RepeatSecond:
		words = append(words, "a time that comes twice runs the second time")
	case RepeatBoth:
		words = append(words, "a time that comes twice runs both times")
	}
	if len(words) == 0 {
		return ""
	}
	return "; " + strings.Join(words, ", ")
}

// timeWords is about the time of day.
func (c *cronSpec) timeWords(second, minute, hour string) string {
	if times := plainTimes(second, minute, hour); times != nil {
		return "at " + enumerate(times, "and")
	}
	if hour == "*" && minute == "*" && second != "0" {
		return evenly("second", second, " of every minute")
	}
	if hour == "*" && second == "0" {
		return evenly("minute", minute, " past every hour")
	}
	text, link := cronFields[1].words(minute, ""), " past "
	if strings.HasPrefix(text, "every") {
		link = " of "
	}
	if second != "0" {
		text = cronFields[0].words(second, "") + " of " + text
	}
	return at(text) + link + cronFields[2].words(hour, "")
}

// evenly is a field of which the greater ones are *.
func evenly(unit, field, of string) string {
	f := &cronFields[slices.IndexFunc(cronFields[:], func(f cronField) bool { return f.name == unit })]
	text := f.words(field, "")
	step, ok := strings.CutPrefix(field, "*/")
	n, _ := strconv.Atoi(step)
	switch {
	case text == "every "+unit:
		return text
	case ok && 60%n == 0:
		return fmt.Sprintf("every %d %ss", n, unit)
	case strings.HasPrefix(text, "every"):
		of = strings.Replace(of, " past ", " of ", 1)
	}
	return at(text) + of
}

// at puts an "at" before a text that needs one.
func at(text string) string {
	if strings.HasPrefix(text, "every") {
		return text
	}
	return "at " + text
}

// plainTimes returns the times of day if they are few and were written as
// numbers, nil otherwise.
func plainTimes(second, minute, hour string) []string {
	const few = 6
	var times []string
	for _, field := range []string{second, minute, hour} {
		if strings.ContainsAny(field, "*-/") {
			return nil
		}
	}
	for _, h := range strings.Split(hour, ",") {
		for _, m := range strings.Split(minute, ",") {
			for _, s := range strings.Split(second, ",") {
				times = append(times, fmt.Sprintf("%02s:%02s:%02s", h, m, s))
			}
		}
	}
	if len(times) > few {
		return nil
	}
	slices.Sort(times)
	times = slices.Compact(times)
	if second == "0" {
		for i := range times {
			times[i] = strings.TrimSuffix(times[i], ":00")
		}
	}
	return times
}

// words is one field of numbers in words, with what its unit is of: "minutes 0
// and 30", "days 1 to 7 of the month", "every 2nd hour from 9 to 17".
func (f *cronField) words(field, of string) string {
	unit := strings.TrimSuffix(f.name, "-of-month")
	var values, steps []string
	for _, item := range strings.Split(field, ",") {
		m := cronItem.FindStringSubmatch(item)
		star, from, to, step := m[1], m[2], m[3], m[4]
		switch {
		case star != "" && (step == "" || step == "1"):
			steps = append(steps, "every "+unit+of)
		case star != "":
			steps = append(steps, "every "+ordinal(step)+" "+unit+of)
		case step == "" && to == "":
			values = append(values, from)
		case step == "" || step == "1":
			values = append(values, from+" to "+f.end(to))
		default:
			steps = append(steps, "every "+ordinal(step)+" "+unit+of+" from "+from+" to "+f.end(to))
		}
	}
	if len(values) > 0 {
		many := len(values) > 1 || strings.Contains(values[0], " to ")
		steps = slices.Insert(steps, 0, plural(unit, many)+" "+enumerate(values, "and")+of)
	}
	return enumerate(steps, "and")
}

// end is the end of a range, the greatest value if none is written.
func (f *cronField) end(to string) string {
	if to == "" {
		return strconv.Itoa(f.max)
	}
	return to
}

func ordinal(n string) string {
	teen := len(n) > 1 && n[len(n)-2] == '1'
	switch last := n[len(n)-1]; {
	case last == '1' && !teen:
		return n + "st"
	case last == '2' && !teen:
		return n + "nd"
	case last == '3' && !teen:
		return n + "rd"
	}
	return n + "th"
}

// dayWords is about the dates, "" for any date of the months that match.
func (c *cronSpec) dayWords(dom, month, dow string) string {
	const allDays, allWeek = 1<<32 - 2, 1<<7 - 1
	anyDom, anyDow := !c.orDays && c.dom == allDays, !c.orDays && c.dow == allWeek
	if anyDom && anyDow {
		return ""
	}
	of := " of the month"
	if anyDow && month != "*" {
		return "on " + cronFields[3].words(dom, " of "+enumerate(names(&cronFields[4], c.month), "and"))
	}
	text := "on " + cronFields[3].words(dom, of)
	switch {
	case anyDom:
		text = c.weekdays(dow)
	case c.orDays:
		text += " or " + c.weekdays(dow)
	case !anyDow:
		text += " if it is " + enumerate(singly(names(&cronFields[5], c.dow)), "or")
	}
	if month == "*" {
		return text
	}
	return text + ", in " + c.monthWords()
}

// weekdays is "from Monday to Friday", or "on a Monday or a Friday".
func (c *cronSpec) weekdays(dow string) string {
	days := names(&cronFields[5], c.dow)
	m := cronItem.FindStringSubmatch(dow)
	if m == nil || m[3] == "" || m[4] != "" || len(days) < 3 { // no range
		return "on " + enumerate(singly(days), "or")
	}
	week := &cronFields[5]
	from, _, _ := week.value(m[2])
	to, _, _ := week.value(m[3])
	return "from " + title(week.names[from%7]) + " to " + title(week.names[to%7])
}

// monthWords is the months by name.
func (c *cronSpec) monthWords() string { return enumerate(names(&cronFields[4], c.month), "and") }

// names are those of a field's values.
func names(f *cronField, set uint64) []string {
	var out []string
	for ; set != 0; set &= set - 1 {
		out = append(out, title(f.names[bits.TrailingZeros64(set)-f.min]))
	}
	return out
}

func singly(days []string) []string {
	for i := range days {
		days[i] = "a " + days[i]
	}
	return days
}

func title(name string) string { return name[:1] + strings.ToLower(name[1:]) }
