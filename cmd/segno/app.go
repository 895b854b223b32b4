package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/segnodev/segno"
)

// Exit codes, part of the command line's contract.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4 // by the state that something is in
	exitWarnings = 5 // of doctor
	exitErrors   = 6 // of doctor
)

// app is one invocation: its streams and its global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	db, output     string
}

// A failure is an error of a command that ran, with its exit code and what to
// do about it. Any other error that cobra returns is about the usage.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns the error itself.
func (f *failure) Unwrap() error { return f.err }

// usage is an error about arguments that only the command could find.
func usage(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// oneArg demands one argument, and says what it is.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s needs one %s, got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "segno",
		Short: "Look into the database file of a segno program",
		Long: `segno looks into the database file of a segno program: its flows, its runs, their
history, and what is wrong with it. Reading works beside the live program, and
never writes. "segno demo" shows what such a file survives.`,
		Example: `  segno demo
  segno flows list --db app.db
  segno runs list --db app.db --status failed,stuck -o json
  segno runs history 7 --db app.db
  segno schedules next "30 2 * * *" --zone America/New_York`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.setColours()
			if !slices.Contains(outputs, a.output) {
				return usage("unknown output %q; it is one of: %s", a.output, strings.Join(outputs, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&a.db, "db", "", "database file (default: $SEGNO_DB)")
	flags.StringVarP(&a.output, "output", "o", "table", "output: "+strings.Join(outputs, " or "))
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(a.demo(), a.demoWorker(), a.flows(), a.runs(), a.schedules(), a.doctor(), a.version())
	return root
}

// group returns a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, s := range subs {
			names = append(names, s.Name())
		}
		if len(args) == 0 {
			return usage("%s needs one of: %s", cmd.CommandPath(), strings.Join(names, ", "))
		}
		return usage("unknown command %q of %s; it has: %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
	}
	cmd.AddCommand(subs...)
	return cmd
}

// reader makes a command's body from a function that reads the file.
func (a *app) reader(fn func(ctx context.Context, r *segno.Reader, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		path, err := a.path()
		if err != nil {
			return err
		}
		r, err := segno.OpenReader(cmd.Context(), path)
		if err != nil {
			return failed(err, unopened(path, err))
		}
		defer func() { _ = r.Close() }()
		return fn(cmd.Context(), r, args)
	}
}

// path returns the path of the database.
func (a *app) path() (string, error) {
	if a.db == "" {
		a.db = os.Getenv("SEGNO_DB")
	}
	if a.db == "" {
		return "", usage("no database given: set --db FILE or SEGNO_DB")
	}
	return a.db, nil
}

// unopened says what to do about a file that does not open.
func unopened(path string, err error) string {
	switch {
	case errors.Is(err, segno.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "make a file to look into: segno demo"
	case errors.Is(err, segno.ErrCorrupt):
		return "look at it: segno doctor --db " + quoted(path)
	}
	return ""
}

// failed gives an error its exit code and its hint.
func failed(err error, hint string) error {
	code := exitFailed
	switch {
	case errors.Is(err, segno.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		code = exitNotFound
	case errors.Is(err, segno.ErrLocked), errors.Is(err, fs.ErrExist):
		code = exitRefused
	}
	return &failure{code: code, err: err, hint: hint}
}

// report prints what went wrong with a command and returns the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{code: exitUsage, err: err}
	}
	if f.code == exitUsage && f.hint == "" {
		f.hint = "see: " + cmd.CommandPath() + " --help"
	}
	if f.err != nil {
		fmt.Fprintln(a.stderr, "segno: "+lines(plain(f.err.Error())))
	}
	if f.hint != "" {
		fmt.Fprintln(a.stderr, f.hint)
	}
	return f.code
}

// plain is the text of an error without the library's name at every turn.
func plain(text string) string { return strings.ReplaceAll(text, "segno: ", "") }

// note prints a message beside the data.
func (a *app) note(format string, args ...any) {
	fmt.Fprintln(a.stderr, oneLine(fmt.Sprintf(format, args...)))
}

// quoted makes a path or a name safe to paste into a shell, and to look at.
func quoted(path string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r) || r == filepath.Separator
	}
	if path != "" && strings.IndexFunc(path, func(r rune) bool { return !safe(r) }) < 0 {
		return path
	}
	if !printable(path) { // $'…' is what bash and zsh have for it
		return "$'" + strings.ReplaceAll(oneLine(strings.ReplaceAll(path, `\`, `\\`)), "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
