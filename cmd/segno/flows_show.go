package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

func (a *app) flowsShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show FLOW",
		Short:             "Show one flow",
		Args:              oneArg("FLOW"),
		ValidArgsFunction: a.completeFlow,
		RunE:              a.reader(a.showFlow),
	}
}

func (a *app) showFlow(ctx context.Context, r *segno.Reader, args []string) error {
	f, err := a.known(ctx, r, args[0])
	if err != nil {
		return err
	}
	why, err := r.Explain(ctx, f.ID)
	if err != nil {
		return failed(err, "")
	}
	if a.output == "json" {
		return a.json(struct {
			segno.FlowInfo
			Explanation segno.Explanation `json:"explanation"`
		}{f, why})
	}
	now := time.Now()
	eligible := ""
	if f.NextEligible.After(now) {
		eligible = due(f.NextEligible, now)
	}
	err = a.fields(
		"flow", f.ID,
		"status", flowStatus(&f),
		"schedule", schedule(&f),
		"runs", f.RunCount,
		"open", f.Open,
		"stuck", count(f.Stuck),
		"last run", stamp(f.LastRun),
		"next run", due(f.NextRun, now),
		"streak", f.FailureStreak,
		"not before", eligible,
		"last error", f.LastError,
		"paused", pauseText(&f),
		"orphaned since", stamp(f.OrphanedSince),
		"not running", why.Text,
	)
	a.note("its runs: segno runs list --flow %s --db %s", quoted(f.ID), quoted(a.db))
	return err
}

func pauseText(f *segno.FlowInfo) string {
	if !f.Paused {
		return ""
	}
	s := "until resumed"
	if !f.PauseUntil.IsZero() {
		s = "until " + stamp(f.PauseUntil)
	}
	if f.PauseActor != "" {
		s += ", by " + f.PauseActor
	}
	if f.PauseNote != "" {
		s += ": " + f.PauseNote
	}
	return s
}
