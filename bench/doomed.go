package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// doomed is the process that is killed, as it and the one that kills it see it.
type doomed struct {
	victim
	path    string // of its database
	journal string // of the steps that ran: a line each, with the time
	flight  int
}

// killChild is the process itself: see doomed.command.
func killChild(args []string) error {
	at := slices.IndexFunc(subjects, func(s subject) bool { return s.name == args[0] })
	flight, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	d := doomed{victim: victim{subjects[at], args[4] == "true"}, path: args[1], journal: args[2], flight: flight}
	journal, err := os.OpenFile(d.journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = journal.Close() }()
	if args[5] == "true" {
		return d.resume(journal)
	}
	return d.die(journal)
}

// die accepts workflows, lets their steps begin once all are accepted, and kills
// itself a little before their middle.
func (d doomed) die(journal io.Writer) error {
	var ran atomic.Int64
	gate := make(chan struct{})
	e, err := d.open(d.path, setup{flight: d.flight, release: d.release, work: func(id, step string) {
		<-gate
		note(journal, id, step)
		if ran.Add(1) == int64(d.flight*5/4) {
			check(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		}
		time.Sleep(time.Millisecond)
	}})
	if err != nil {
		return err
	}
	var accepted sync.WaitGroup
	waits := make([]func() error, d.flight)
	for i := range waits {
		accepted.Go(func() {
			var err error
			waits[i], err = e.start("o-" + strconv.Itoa(i))
			check(err)
		})
	}
	accepted.Wait()
	close(gate)
	for _, wait := range waits {
		check(wait())
	}
	return errors.New("all of them have ended")
}

// resume opens the file and does nothing else until its stdin ends.
func (d doomed) resume(journal io.Writer) error {
	e, err := d.open(d.path, setup{flight: d.flight, release: d.release, work: func(id, step string) {
		note(journal, id, step)
		time.Sleep(time.Millisecond)
	}})
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = e // its locks go with the process
	return nil
}

// note writes that a step runs, in one write.
func note(journal io.Writer, id, step string) {
	_, err := fmt.Fprintf(journal, "%s %s %d\n", id, step, time.Now().UnixNano())
	check(err)
}

// firstSince returns how long after the start the first step behind it ran.
func (d doomed) firstSince(start time.Time) (time.Duration, error) {
	text, err := os.ReadFile(d.journal)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if at, err := strconv.ParseInt(fields[len(fields)-1], 10, 64); err == nil && at > start.UnixNano() {
			return time.Duration(at - start.UnixNano()), nil
		}
	}
	return never, err
}

// repeated counts the steps that ran once more. It is an error if one never ran
// though all workflows have ended.
func (d doomed) repeated(ended bool) (n int, err error) {
	text, err := os.ReadFile(d.journal)
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		step := line[:strings.LastIndexByte(line, ' ')]
		if seen[step] {
			n++
		}
		seen[step] = true
	}
	if ended && len(seen) != d.flight*len(steps) {
		err = fmt.Errorf("all workflows have ended, but of %d steps %d never ran", d.flight*len(steps), d.flight*len(steps)-len(seen))
	}
	return n, err
}
