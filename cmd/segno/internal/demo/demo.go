// Package demo is the program behind "segno demo": a worker that does four kinds
// of work in one file, a supervisor that kills it with SIGKILL and starts it
// again, and a proof, read from the file, that nothing was lost or done twice.
package demo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// WorkerCommand is the hidden subcommand that the supervisor starts this
// program again with.
const WorkerCommand = "demo-worker"

// Config says what to show.
type Config struct {
	Kills   int           // how often the worker is killed, at least 1
	Input   string        // a file of lines; "": the time-zone table in this binary
	DB      string        // a file to be made; "": in a new temporary folder
	Stretch time.Duration // what the work is slowed down to, so that there is something to kill
	Out     io.Writer
}

// ErrProof says that the file does not show what it should.
var ErrProof = errors.New("the proof failed")

// many is a number of things.
func many(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return thousands(n) + " " + thing
}

// prepare checks the configuration and finds a place for the file.
func (c *Config) prepare() error {
	if c.Kills < 1 {
		return fmt.Errorf("%d kills prove nothing; give a number from 1", c.Kills)
	}
	if c.DB == "" {
		dir, err := os.MkdirTemp("", "segno-demo-")
		if err != nil {
			return err
		}
		c.DB = filepath.Join(dir, "demo.db")
		return nil
	}
	if _, err := os.Stat(c.DB); err == nil {
		return fmt.Errorf("%w: %s; the demo makes a file of its own: give a new name, or none", fs.ErrExist, c.DB)
	}
	_, err := os.Stat(filepath.Dir(c.DB))
	return err
}

// upstream is the file whose presence makes the worker's probe succeed: the
// part of the world that is outside of the worker, and in the supervisor's hand.
func upstream(db string) string { return db + ".upstream" }

// workerLog is where the worker's own log goes.
func workerLog(db string) string { return db + ".log" }
