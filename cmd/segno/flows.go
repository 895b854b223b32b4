package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// flows is the group of commands about flows.
func (a *app) flows() *cobra.Command {
	return group("flows", "The flows of a file: schedule, streak, backoff, trip", a.flowsList(), a.flowsShow())
}

// flowStatus is the status of a flow with what else keeps it from running.
func flowStatus(f *segno.FlowInfo) painted {
	s := status(string(f.Status))
	if f.Paused {
		s += ", paused"
	}
	if f.Orphaned {
		s += ", orphaned"
	}
	return s
}

// schedule is a flow's schedule in words.
func schedule(f *segno.FlowInfo) string {
	if f.Schedule == "" {
		return "manual"
	}
	return f.Schedule
}

// known returns a flow, or an error that says where to find the ids.
func (a *app) known(ctx context.Context, r *segno.Reader, id string) (segno.FlowInfo, error) {
	f, err := r.Status(ctx, id)
	if err != nil {
		return f, failed(err, "list the flows there are: segno flows list --db "+quoted(a.db))
	}
	return f, nil
}
