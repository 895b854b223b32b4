package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/segnodev/segno"
)

// progress prints what happens, a line each.
type progress struct {
	out   io.Writer
	began time.Time
	lines int // of the input
	seen  segno.FlowInfo
	work  time.Time // when it last spoke of the work
	last  string
}

// workEvery is how often the work is spoken of.
const workEvery = 1500 * time.Millisecond

// say prints one line: when, about what, and what.
func (p *progress) say(about, format string, args ...any) {
	fmt.Fprintf(p.out, "%7.2f s  %-9s %s\n", time.Since(p.began).Seconds(), about, fmt.Sprintf(format, args...))
}

// tell prints what is new in a view.
func (p *progress) tell(v *view) {
	p.tellProbe(&v.probe)
	if v.at.Sub(p.work) < workEvery {
		return
	}
	p.work = v.at
	text := fmt.Sprintf("lines %s of %s · orders %d shipped, %d rolled back, %d to go · reports %d",
		thousands(v.lines), thousands(p.lines), v.shipped, v.returned, v.open, v.reports)
	if text != p.last {
		p.say("work", "%s", text)
	}
	p.last = text
}

// tellProbe prints how the probe's streak moves.
func (p *progress) tellProbe(f *segno.FlowInfo) {
	streak, tripped := p.seen.FailureStreak, p.seen.Status == segno.StatusTripped
	p.seen = *f
	switch {
	case f.Status == segno.StatusTripped && !tripped:
		p.say("probe", "tripped after %d failures in a row: not dispatched until it is reset", f.FailureStreak)
	case f.FailureStreak > streak && f.Status != segno.StatusTripped:
		p.say("probe", "failed, %s", windowText(f))
	case f.FailureStreak == 0 && streak > 0:
		p.say("probe", "streak 0 again")
	}
}

// windowText is streak and window of a flow.
func windowText(f *segno.FlowInfo) string {
	switch {
	case f.Status == segno.StatusTripped:
		return fmt.Sprintf("streak %d, tripped", f.FailureStreak)
	case f.NextEligible.IsZero():
		return fmt.Sprintf("streak %d", f.FailureStreak)
	}
	return fmt.Sprintf("streak %d, not before %s", f.FailureStreak, f.NextEligible.Format("15:04:05.000000Z"))
}

// thousands prints a number in groups of three.
func thousands[N int | int64](n N) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return b.String()
}
