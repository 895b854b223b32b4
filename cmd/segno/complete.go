package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// completeFlow offers the ids of flows to the shell.
func (a *app) completeFlow(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(r *segno.Reader) (out []string, err error) {
		flows, err := r.List(cmd.Context())
		for i := range flows {
			if id := flows[i].ID; printable(id) { // else the shell would make something else of it
				out = append(out, cobra.CompletionWithDesc(id, string(flows[i].Status)))
			}
		}
		return out, err
	})
}

// completeRun offers the ids of the newest runs to the shell.
func (a *app) completeRun(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(r *segno.Reader) (out []string, err error) {
		runs, err := r.Runs(cmd.Context(), segno.RunFilter{Limit: 50})
		for i := range runs {
			run := &runs[i]
			out = append(out, cobra.CompletionWithDesc(fmt.Sprint(run.ID), oneLine(fmt.Sprintf("%s, %s in %s", run.Flow, run.Status, run.State))))
		}
		return out, err
	})
}

// complete asks the file; whatever goes wrong, there is nothing to offer.
func (a *app) complete(cmd *cobra.Command, args []string, ask func(*segno.Reader) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	path, err := a.path()
	if err != nil || len(args) > 0 {
		return nil, none
	}
	r, err := segno.OpenReader(cmd.Context(), path)
	if err != nil {
		return nil, none
	}
	defer func() { _ = r.Close() }()
	out, err := ask(r)
	if err != nil {
		return nil, none
	}
	return out, none | cobra.ShellCompDirectiveKeepOrder
}
