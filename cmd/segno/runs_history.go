package main

import (
	"context"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

func (a *app) runsHistory() *cobra.Command {
	return &cobra.Command{
		Use:               "history RUN",
		Short:             "Show every transition, retry, crash and undo of one run",
		Args:              oneArg("RUN"),
		ValidArgsFunction: a.completeRun,
		RunE:              a.reader(a.history),
	}
}

func (a *app) history(ctx context.Context, r *segno.Reader, args []string) error {
	run, err := a.run(ctx, r, args[0])
	if err != nil {
		return err
	}
	entries, err := r.History(ctx, run.ID)
	if err != nil {
		return a.noRun(err)
	}
	if a.output == "json" {
		for i := range entries {
			entries[i].Data = asJSON(entries[i].Data)
		}
		return a.json(entries)
	}
	rows := make([]table.Row, len(entries))
	for i := range entries {
		e := &entries[i]
		rows[i] = table.Row{e.ID, stamp(e.At), e.Visit, e.Kind, e.State, e.Attempt, entryNote(e), brief(string(e.Data), 60)}
	}
	return a.table(table.Row{"id", "at", "visit", "kind", "state", "attempt", "remark", "data"}, rows)
}

// entryNote is what an entry says beside its kind.
func entryNote(e *segno.Entry) string {
	switch {
	case e.Uncertain && e.Error != "":
		return "uncertain: " + brief(plain(e.Error), 50)
	case e.Uncertain:
		return "uncertain"
	}
	return brief(plain(e.Error), 60)
}
