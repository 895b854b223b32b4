// Saga: an order is reserved and charged; when it cannot be shipped, what was
// done is undone, last first. The program starts itself again as a worker, and
// kills it with SIGKILL twice, in the middle of the charge and of the refund: the
// bank has done it, and the file does not know yet. The next worker repeats the
// request with the same key, so that it has no second effect. To read on:
//
//	go run ./examples/saga -db saga.db
//	sqlite3 -box saga.db 'SELECT visit, kind, state, status, error FROM segno_history WHERE run = 1'
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/segnodev/segno"
)

type State string

const Reserve, Charge, Ship, Done State = "reserve", "charge", "ship", "done"

type Order struct{ Cents int }

// A world is a system that knows nothing of segno: it makes a folder for each
// request, named by its key, so that one that was made already changes nothing.
// It does not answer the request named by hang.
type world struct{ folder, hang string }

const hanging = "  SIGKILL" // the worker says it, the supervisor does it

func (w world) request(ctx context.Context, what string) error {
	key := segno.InfoFrom(ctx).Key // the same on every retry and resume of the visit
	err := os.Mkdir(filepath.Join(w.folder, strings.ReplaceAll(key, "/", " ")), 0o700)
	if errors.Is(err, os.ErrExist) {
		fmt.Println("  " + what + " (again: the key is known, nothing happens)")
		return nil
	}
	fmt.Println("  " + what)
	if err == nil && what == w.hang {
		fmt.Println(hanging)
		time.Sleep(time.Minute) // longer than it has to live
	}
	return err
}

// fulfil is a table: each state with what it does and what undoes it.
func fulfil(w world) segno.Workflow[State, Order] {
	reserve := func(ctx context.Context, _ *Order) (State, error) { return Charge, w.request(ctx, "reserve") }
	release := func(ctx context.Context, _ Order) error { return w.request(ctx, "release") }
	charge := func(ctx context.Context, _ *Order) (State, error) { return Ship, w.request(ctx, "charge") }
	refund := func(ctx context.Context, _ Order) error { return w.request(ctx, "refund") }
	ship := func(context.Context, *Order) (State, error) { return "", errors.New("no carrier goes there") }
	return segno.Workflow[State, Order]{Initial: Reserve, Steps: segno.Steps[State, Order]{
		Reserve: {Do: reserve, Undo: release},
		Charge:  {Do: charge, Undo: refund},
		Ship:    {Do: ship, Next: []State{Done}},
		Done:    {Final: true},
	}}
}

// work is a worker's life. It need not know whether it is the first: Start goes
// on with what the file holds, and a trigger whose Key is known makes no new run.
func work(ctx context.Context, db, hang string) error {
	s := segno.New(db, segno.Options{})
	if err := s.Manual("orders", fulfil(world{db + ".world", hang})); err != nil {
		return err
	}
	running, err := s.Start(ctx)
	if err != nil {
		return err
	}
	id, err := running.Trigger(ctx, "orders", segno.Trigger{Key: "order 42", Input: Order{Cents: 1250}})
	if err == nil {
		_, err = running.WaitRun(ctx, id)
	}
	if !errors.As(err, new(*segno.RunError)) { // it is to fail
		return errors.Join(err, running.Stop(ctx))
	}
	history, err := running.History(ctx, id)
	fmt.Println("the history of the run")
	for _, e := range history {
		fmt.Printf("  visit %d  %-8s  %-7s  %s\n", e.Visit, e.Kind, e.State, e.Error)
	}
	return errors.Join(err, running.Stop(ctx))
}

// supervise starts this program as a worker, and kills it as soon as it hangs.
func supervise(ctx context.Context, db, hang string) error {
	worker := exec.CommandContext(ctx, os.Args[0], "-worker", hang, "-db", db)
	worker.Stderr = os.Stderr
	out, err := worker.StdoutPipe()
	if err = errors.Join(err, worker.Start()); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Println(lines.Text())
		if lines.Text() == hanging {
			err = errors.Join(err, worker.Process.Kill())
		}
	}
	return errors.Join(err, worker.Wait())
}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-saga-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "saga.db")
	}
	if err := os.MkdirAll(db+".world", 0o700); err != nil {
		return err
	}
	for i, hang := range []string{"charge", "refund", "nowhere"} {
		fmt.Println("worker", i+1)
		if err := supervise(ctx, db, hang); err != nil && hang == "nowhere" { // a killed one has an error, too
			return err
		}
	}
	effects, err := os.ReadDir(db + ".world")
	fmt.Println("what has happened in the world")
	for _, e := range effects {
		fmt.Println("  visit", e.Name()[strings.Index(e.Name(), " ")+1:])
	}
	return err
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	worker := flag.String("worker", "", "be the worker, and hang in this `request`")
	flag.Parse()
	life := run
	if *worker != "" {
		life = func(ctx context.Context, db string) error { return work(ctx, db, *worker) }
	}
	if err := life(context.Background(), *db); err != nil {
		log.Fatalln("saga:", err)
	}
}
