package main

import (
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// nextFlags are the flags of schedules next.
type nextFlags struct {
	zone, from string
	n          int
}

const (
	maxNext  = 10_000
	lastYear = 9999 // of RFC 3339
)

func (a *app) schedulesNext() *cobra.Command {
	var o nextFlags
	cmd := &cobra.Command{
		Use:   "next EXPR",
		Short: "List the next times of a schedule, with what changes of the clock do to it",
		Long: `List the next times of a schedule, from --from on: in its zone, in UTC, and with a
note where a change of the clock moved a time or shows it twice. An interval counts
from --from.

` + exprHelp,
		Example: `  segno schedules next "30 2 * * *" --zone America/New_York --from 2026-03-07 -n 5
  segno schedules next "every 10m" -n 3 -o json`,
		Args: exprArg,
		RunE: func(_ *cobra.Command, args []string) error { return a.nextTimes(args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.zone, "zone", "", "zone, such as Europe/Berlin (default: the expression's, or UTC)")
	f.StringVar(&o.from, "from", "", `date, "date time", or RFC 3339; in the zone unless it says otherwise (default: now)`)
	f.IntVarP(&o.n, "number", "n", 10, "how many")
	return cmd
}

// A plannedTime is one line of schedules next.
type plannedTime struct {
	At    time.Time `json:"at"`
	Local string    `json:"local"`
	Note  string    `json:"note,omitempty"`
}

// A schedulePlan is what schedules next has to say.
type schedulePlan struct {
	Schedule string        `json:"schedule"`
	Words    string        `json:"words"`
	Zone     string        `json:"zone"`
	From     time.Time     `json:"from"`
	Next     []plannedTime `json:"next"`
}

func (a *app) nextTimes(expr string, o *nextFlags) error {
	if o.n < 1 || o.n > maxNext {
		return usage("-n must be from 1 to %d, got %d", maxNext, o.n)
	}
	s, err := parseSchedule(expr, o.zone)
	if err != nil {
		return err
	}
	zone := s.Zone()
	if o.zone != "" {
		if zone, err = loadZone(o.zone); err != nil {
			return err
		}
	}
	from, err := fromTime(o.from, zone)
	if err != nil {
		return err
	}
	p := schedulePlan{s.String(), s.Describe(), zone.String(), from.UTC(), plan(s, from, zone, o.n)}
	if a.output == "json" {
		return a.json(p)
	}
	return a.planTable(&p, zone)
}

func (a *app) planTable(p *schedulePlan, zone *time.Location) error {
	a.note("%s", p.Words)
	if len(p.Next) == 0 {
		a.note("not due from %s on", stamp(p.From))
		return nil
	}
	rows := make([]table.Row, len(p.Next))
	for i, n := range p.Next {
		rows[i] = table.Row{n.At.In(zone).Format("Mon 2006-01-02 15:04:05.999999 -07:00"), n.At.Format("2006-01-02 15:04:05.999999Z"), n.Note}
	}
	return a.table(table.Row{zone.String(), "utc", "note"}, rows)
}

// plan lists the times from the given one on, which itself may be the first.
// An interval counts from it.
func plan(s segno.Schedule, from time.Time, zone *time.Location, n int) []plannedTime {
	if text := s.String(); strings.HasPrefix(text, "cron ") || strings.HasPrefix(text, "at ") {
		from = from.Add(-time.Nanosecond)
	}
	planned := []plannedTime{}
	for _, at := range s.Next(from, n) {
		if at.Year() > lastYear {
			break
		}
		planned = append(planned, plannedTime{at, at.In(zone).Format(time.RFC3339Nano), s.DSTNote(at)})
	}
	return planned
}

// loadZone loads a zone as a cron expression would.
func loadZone(name string) (*time.Location, error) {
	s, err := segno.ParseSchedule("CRON_TZ=" + name + " @daily")
	if err != nil {
		return nil, usage("%w", err)
	}
	return s.Zone(), nil
}

// fromTime reads a time, in the zone if it does not name one.
func fromTime(text string, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Now().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil && t.UTC().Year() >= 0 && t.UTC().Year() <= lastYear {
			return t, nil
		}
	}
	return time.Time{}, usage(`%q is no time; write one such as 2026-03-07, "2026-03-07 09:00" or 2026-03-07T09:00:00Z`, text)
}
