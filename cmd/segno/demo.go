package main

import (
	"errors"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno/cmd/segno/internal/demo"
)

func (a *app) demo() *cobra.Command {
	cfg := demo.Config{Out: a.stdout}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Kill a working program again and again, and prove that nothing is lost",
		Long: `Work in one file with four flows for about 20 seconds, in a process that is
killed with SIGKILL several times and started again; then prove from the file
that nothing was lost and nothing was done twice. It needs nothing but this
program. The exit code is 0 only if the proof holds.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cfg.Kills < 1 {
			return usage("--kills %d proves nothing; give a number from 1", cfg.Kills)
		}
		cfg.DB = a.db // not SEGNO_DB: that is a file of the user's
		err := demo.Run(cmd.Context(), cfg)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return failed(err, "check the path")
		}
		return failed(err, "")
	}
	flags := cmd.Flags()
	flags.IntVar(&cfg.Kills, "kills", 3, "how often to kill the process")
	flags.StringVar(&cfg.Input, "input", "", "a file of lines to ingest (default: the IANA time-zone table, which is built in)")
	flags.DurationVar(&cfg.Stretch, "stretch", 15*time.Second, "how long to make the work last")
	_ = flags.MarkHidden("stretch")
	return cmd
}

// demoWorker is the process that the demo kills.
func (a *app) demoWorker() *cobra.Command {
	return &cobra.Command{
		Use:    demo.WorkerCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := demo.Work(cmd.Context(), a.stdin, a.stdout, a.stderr); err != nil {
				return failed(err, "")
			}
			return nil
		},
	}
}
