package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// schedules is the group of commands about schedules; they read no file.
func (a *app) schedules() *cobra.Command {
	return group("schedules", "Try a schedule: in words, and when it is due", a.schedulesNext(), a.schedulesExplain())
}

const exprHelp = `EXPR is a cron expression of five fields, or six with seconds first, "every 10m",
"fixed delay 5m", or "at 2026-03-08T09:00:00Z". Behind a cron expression may stand
what a flow's DST rule says: gap=skip, repeat=second, repeat=both.`

// parseSchedule reads a schedule, in the given zone if the text names none.
func parseSchedule(text, zone string) (segno.Schedule, error) {
	s, err := segno.ParseSchedule(text)
	if err != nil {
		return s, usage("%w", err)
	}
	expr, isCron := strings.CutPrefix(s.String(), "cron ")
	switch {
	case zone == "" || !isCron:
		return s, nil
	case strings.Contains(strings.ToUpper(text), "TZ="):
		return s, usage("the expression names its zone already; leave out --zone %s", zone)
	}
	if s, err = segno.ParseSchedule("CRON_TZ=" + zone + " " + expr); err != nil {
		return s, usage("%w", err)
	}
	return s, nil
}

// exprArg demands one argument; without quotes the shell makes more of them.
func exprArg(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usage(`%s needs one EXPR, got %d; put it in quotes: "30 2 * * *"`, cmd.CommandPath(), len(args))
}
