package segno

import (
	"fmt"
	"strings"
	"time"
)

// DST says what a cron schedule at fixed times does on the days when its zone
// changes the clock. The zero value is the rule of ISC cron: one run for each
// date, whatever the clock does.
//
// It is for schedules at fixed times only. One whose minute or hour begins with
// *, such as "*/10 * * * *", counts real time: no slot in a gap, one in each pass
// of a repeated hour. Of that one, and of what is no cron schedule, DST changes
// nothing.
type DST struct {
	// Gap is about a time that the clock skips; the zero value is GapRunAfter.
	Gap GapRule
	// Repeat is about a time that the clock shows twice; the zero value is RepeatFirst.
	Repeat RepeatRule
}

// GapRule says what becomes of a time that the clock skips, as in spring.
type GapRule int

const (
	// GapRunAfter runs at the first instant after the gap, once for all the times
	// in it.
	GapRunAfter GapRule = 0
	// GapSkip leaves the run out.
	GapSkip GapRule = 1
)

// RepeatRule says what becomes of a time that the clock shows twice, as in autumn.
type RepeatRule int

const (
	// RepeatFirst runs the first time.
	RepeatFirst RepeatRule = 0
	// RepeatSecond runs the second time.
	RepeatSecond RepeatRule = 1
	// RepeatBoth runs both times: two slots.
	RepeatBoth RepeatRule = 2
)

// realTime is what a wild spec does.
var realTime = DST{Gap: GapSkip, Repeat: RepeatBoth}

// The spelling of the rules in the text of a schedule; the zero ones have none.
const (
	gapWord    = "gap="
	repeatWord = "repeat="
)

// String is the rule as it is stored behind the expression, "" for the zero value.
func (d DST) String() string {
	var words []string
	if d.Gap == GapSkip {
		words = append(words, gapWord+"skip")
	}
	switch d.Repeat {
	case RepeatSecond:
		words = append(words, repeatWord+"second")
	case RepeatBoth:
		words = append(words, repeatWord+"both")
	}
	return strings.Join(words, " ")
}

// validate returns what is wrong with the rule.
func (d DST) validate() error {
	if d.Gap < GapRunAfter || d.Gap > GapSkip {
		return fmt.Errorf("%w: DST.Gap %d is none of GapRunAfter and GapSkip", ErrConfig, d.Gap)
	}
	if d.Repeat < RepeatFirst || d.Repeat > RepeatBoth {
		return fmt.Errorf("%w: DST.Repeat %d is none of RepeatFirst, RepeatSecond and RepeatBoth", ErrConfig, d.Repeat)
	}
	return nil
}

// rule returns the one that c goes by.
func (c *cronSpec) rule() DST {
	if c.wild {
		return realTime
	}
	return c.dst
}

// withDST returns the schedule with another rule, if it is one that has a rule
// and d is not the zero value.
func (s Schedule) withDST(d DST) Schedule {
	if s.cron == nil || s.cron.wild || d == (DST{}) {
		return s
	}
	c := *s.cron
	c.dst = d
	s.cron = &c
	return s
}

// DSTNote says what a change of the clock has to do with a slot of a cron
// schedule: that its time of day does not exist on that date, or which pass of a
// repeated time it is. It is "" for any other slot.
func (s Schedule) DSTNote(slot time.Time) string { return s.note(slot) }

// note does the work of DSTNote.
func (s Schedule) note(slot time.Time) string {
	if s.kind != cronKind || s.cron == nil {
		return ""
	}
	c, sec := s.cron, slot.Unix()
	offset, end := offsetAt(c.zone, sec)
	w, shown := wall(sec+offset), lastShown(c.zone, sec-1)
	if first := c.begin(sec, offset); first < w {
		return c.gapNote(first, w)
	}
	if w <= shown {
		return w.clock() + " comes twice on " + w.date() + ": this is the second time"
	}
	if _, _, again := shownAgain(c.zone, w, end); again {
		return w.clock() + " comes twice on " + w.date() + ": this is the first time"
	}
	return ""
}

// gapNote is the note of the run at the end of a gap, for all matches from the
// first in the gap on.
func (c *cronSpec) gapNote(first, end wall) string {
	last := first
	for w := first; w < end; w = c.skipped(w+1, end) {
		last = w
	}
	runs := end.clock()
	if end.midnight() != first.midnight() {
		runs += " on " + end.date()
	}
	if last == first {
		return first.clock() + " does not exist on " + first.date() + ": runs at " + runs
	}
	return first.clock() + " to " + last.clock() + " do not exist on " + first.date() + ": one run at " + runs
}

// clock is the time of day as 15:04, with the seconds if there are any.
func (w wall) clock() string {
	layout := "15:04"
	if w%60 != 0 {
		layout = time.TimeOnly
	}
	return time.Unix(int64(w), 0).UTC().Format(layout)
}

func (w wall) date() string { return time.Unix(int64(w), 0).UTC().Format(time.DateOnly) }
