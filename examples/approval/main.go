// Approval: a purchase waits for a person's word, as a row in the file, for hours
// if need be; nobody's word in time, and it expires. Signals may be early (they
// are kept), sent twice (the second is ignored) or late (the sender is told). At
// a terminal the program asks you; otherwise, or with -auto, it answers itself.
// To read on:
//
//	go run ./examples/approval -db approval.db
//	sqlite3 -box approval.db 'SELECT run, name, message, status, payload FROM segno_signals'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/segnodev/segno"
)

type State string

const Check, Decide, Approved, Rejected, Expired State = "check", "decide", "approved", "rejected", "expired"

type Purchase struct{ What, By string }

// A Word is what the signal carries.
type Word struct {
	Yes bool
	By  string
}

// workflow gives a person so much time, counted from the entry into Decide. The
// deadline is in the file, and runs on while the program is down.
func workflow(patience time.Duration) segno.Workflow[State, Purchase] {
	decide := func(_ context.Context, p *Purchase, w Word) (State, error) {
		if p.By = w.By; w.Yes {
			return Approved, nil
		}
		return Rejected, nil
	}
	expire := func(context.Context, *Purchase) (State, error) { return Expired, nil }
	return segno.Workflow[State, Purchase]{Initial: Check, Steps: segno.Steps[State, Purchase]{
		Check:    {Do: segno.Sleep[Purchase](200*time.Millisecond, Decide)}, // stands for some work
		Decide:   {Do: segno.Await("word", decide, segno.AwaitOptions[State, Purchase]{OnTimeout: expire}), Timeout: patience},
		Approved: {Final: true}, Rejected: {Final: true}, Expired: {Final: true},
	}}
}

// An office asks for purchases, and says what it has to say to them by their key.
type office struct {
	*segno.RunningScheduler
	purchases *segno.BoundFlow[State, Purchase]
}

func (o office) ask(ctx context.Context, what string) (segno.RunID, error) {
	return o.purchases.Trigger(ctx, Purchase{What: what}, segno.Trigger{Key: what})
}

func (o office) say(ctx context.Context, what, id string, w Word) error {
	err := o.Signal(ctx, segno.Target{Flow: "purchases", Key: what}, segno.Message{Name: "word", ID: id, Payload: w})
	fmt.Printf("%s: %s says %v (message %s)\n", what, w.By, w.Yes, id)
	if errors.Is(err, segno.ErrEnded) {
		fmt.Println("   too late:", err)
		return nil
	}
	return err
}

func (o office) end(ctx context.Context, id segno.RunID) error {
	p, err := o.purchases.Wait(ctx, id)
	if err == nil {
		fmt.Println(p.Data.What+":", p.State, p.Data.By)
	}
	return err
}

// automatic shows all that can become of a word.
func (o office) automatic(ctx context.Context) error {
	laptop, err := o.ask(ctx, "laptop")
	if err != nil {
		return err
	}
	err = errors.Join( // early: the run is in Check, and does not wait yet
		o.say(ctx, "laptop", "mail-1", Word{true, "Ada"}),
		o.say(ctx, "laptop", "mail-1", Word{true, "Ada"}), // twice: the mail was sent again
		o.end(ctx, laptop),
		o.say(ctx, "laptop", "mail-2", Word{false, "Bob"}), // late
	)
	yacht, failed := o.ask(ctx, "yacht")
	err = errors.Join(err, failed, o.end(ctx, yacht), o.say(ctx, "yacht", "mail-3", Word{true, "Ada"}))
	kept := 0
	failed = o.DB().QueryRowContext(ctx, "SELECT count(*) FROM segno_signals").Scan(&kept)
	fmt.Println("words in the file:", kept)
	return errors.Join(err, failed)
}

// dialogue asks whoever is at the terminal. Until the answer, or the deadline,
// the run is waiting: kill this program, and look into the file.
func (o office) dialogue(ctx context.Context) error {
	what := fmt.Sprintf("bicycle %d", time.Now().Unix())
	id, err := o.ask(ctx, what)
	if err != nil {
		return err
	}
	fmt.Printf("A %s for 900 euros? You have 30 seconds. [yes/no] ", what)
	go func() {
		var answer string
		if _, err := fmt.Scanln(&answer); err == nil {
			_ = o.say(ctx, what, "terminal", Word{answer == "yes", "you"})
		}
	}()
	return o.end(ctx, id)
}

func run(ctx context.Context, db string, auto bool) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-approval-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "approval.db")
	}
	patience := 30 * time.Second
	if auto {
		patience = 2 * time.Second
	}
	s := segno.New(db, segno.Options{})
	if err := s.Add(segno.Flow{ID: "purchases", Workflow: workflow(patience), Overlap: segno.Allow(0)}); err != nil {
		return err
	}
	running, err := s.Start(ctx)
	if err != nil {
		return err
	}
	purchases, err := segno.Bind(running, "purchases", workflow(patience))
	if o := (office{running, purchases}); err == nil && auto {
		err = o.automatic(ctx)
	} else if err == nil {
		err = o.dialogue(ctx)
	}
	return errors.Join(err, running.Stop(ctx))
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	auto := flag.Bool("auto", false, "answer without asking")
	flag.Parse()
	in, err := os.Stdin.Stat()
	null, _ := os.Stat(os.DevNull) // looks like a terminal otherwise
	if err != nil || in.Mode()&os.ModeCharDevice == 0 || os.SameFile(in, null) {
		*auto = true
	}
	if err := run(context.Background(), *db, *auto); err != nil {
		log.Fatalln("approval:", err)
	}
}
