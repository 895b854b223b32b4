package main

import "github.com/spf13/cobra"

func (a *app) schedulesExplain() *cobra.Command {
	zone := ""
	cmd := &cobra.Command{
		Use:   "explain EXPR",
		Short: "Say a schedule in words, and what it does where the clock changes",
		Long:  "Say a schedule in words, and what it does where the clock changes.\n\n" + exprHelp,
		Example: `  segno schedules explain "0 9 1 * MON"
  segno schedules explain "*/10 * * * *" --zone Europe/Berlin`,
		Args: exprArg,
		RunE: func(_ *cobra.Command, args []string) error { return a.explainSchedule(args[0], zone) },
	}
	cmd.Flags().StringVar(&zone, "zone", "", "zone of a cron expression, such as Europe/Berlin (default: the expression's, or UTC)")
	return cmd
}

func (a *app) explainSchedule(expr, zone string) error {
	s, err := parseSchedule(expr, zone)
	if err != nil {
		return err
	}
	if zone != "" { // one that no cron expression has checked
		if _, err := loadZone(zone); err != nil {
			return err
		}
	}
	if a.output == "json" {
		return a.json(struct {
			Schedule     string `json:"schedule"`
			Words        string `json:"words"`
			Zone         string `json:"zone"`
			ClockChanges string `json:"clock_changes"`
		}{s.String(), s.Describe(), s.Zone().String(), s.DescribeDST()})
	}
	return a.fields("schedule", s.String(), "in words", s.Describe(), "zone", s.Zone().String(), "clock changes", s.DescribeDST())
}
