package main

import (
	"context"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

func (a *app) flowsList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all flows, in the order of their registration",
		Args:  cobra.NoArgs,
		RunE:  a.reader(a.listFlows),
	}
}

func (a *app) listFlows(ctx context.Context, r *segno.Reader, _ []string) error {
	flows, err := r.List(ctx)
	switch {
	case err != nil:
		return failed(err, "")
	case a.output == "json":
		return a.json(flows)
	case len(flows) == 0:
		a.note("no flows: the program that owns the file has registered none")
		return nil
	}
	now := time.Now()
	rows := make([]table.Row, len(flows))
	for i := range flows {
		f := &flows[i]
		rows[i] = table.Row{f.ID, flowStatus(f), schedule(f), f.RunCount, f.Open, f.FailureStreak, due(f.NextRun, now), brief(f.LastError, 50)}
	}
	return a.table(table.Row{"flow", "status", "schedule", "runs", "open", "streak", "next run", "last error"}, rows)
}
