package segno_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/segnodev/segno"
)

// README: begin
type State string

const (
	Reserve State = "reserve"
	Charge  State = "charge"
	Ship    State = "ship"
	Done    State = "done"
)

type Order struct {
	ID, Hold, Txn string
	Cents         int64
}

var Fulfil = segno.Workflow[State, Order]{
	Version: 1,
	Initial: Reserve,
	Timeout: time.Hour, // of the whole run, stored as an absolute deadline
	Steps: segno.Steps[State, Order]{
		Reserve: {Do: reserve, Undo: release, Next: []State{Charge}},
		Charge:  {Do: charge, Undo: refund, Retry: segno.Exponential(5), Timeout: 10 * time.Second},
		Ship:    {Do: segno.Poll(shipped)},
		Done:    {Final: true},
	},
}

func charge(ctx context.Context, o *Order) (State, error) { // a pointer: may change, saved on success
	txn, err := bank.Charge(ctx, segno.InfoFrom(ctx).Key, o.Cents)
	if err != nil {
		return "", err // tried again, also after a kill -9
	}
	o.Txn = txn
	return Ship, nil
}

func refund(ctx context.Context, o Order) error { return bank.Refund(ctx, o.Txn) } // a value: as saved

func run(ctx context.Context, path string) error {
	s := segno.New(path, segno.Options{})
	err := errors.Join(
		s.Every("sweep", Sweep, 10*time.Minute),
		s.Cron("report", Report, "0 9 * * MON-FRI"),
		s.Add(segno.Flow{ID: "orders", Workflow: Fulfil, Overlap: segno.Allow(100)}),
		s.SetBackoff("sweep", segno.BackoffPolicy{Initial: 5 * time.Second, StreakLimit: 5}),
	)
	if err != nil {
		return err
	}
	running, err := s.Start(ctx) // lock, migrate, recover; then the loops
	if err != nil {
		return err
	}
	orders, err := segno.Bind(running, "orders", Fulfil)
	if err != nil {
		return err
	}
	id, err := orders.Trigger(ctx, Order{ID: "42", Cents: 1250})
	if err != nil {
		return err
	}
	order, err := orders.Wait(ctx, id) // err is a *segno.RunError if it did not complete
	if err != nil {
		return err
	}
	fmt.Println(order.State, order.Data.Txn)
	return running.Stop(context.Background()) // suspend; the next Start resumes
}

// README: end

// Sweep and Report are other workflows of the same program.
var (
	Sweep = segno.Workflow[State, struct{}]{Initial: Done, Steps: segno.Steps[State, struct{}]{
		Done: {Final: true},
	}}
	Report = Sweep
)

func reserve(_ context.Context, o *Order) (State, error) {
	o.Hold = "hold-" + o.ID
	return Charge, nil
}

func release(context.Context, Order) error { return nil }

func shipped(context.Context, *Order) (State, time.Duration, error) { return Done, 0, nil }

// bank stands for another system.
var bank fakeBank

type fakeBank struct{}

func (fakeBank) Charge(_ context.Context, key string, cents int64) (string, error) {
	if key == "" {
		return "", errors.New("no idempotency key")
	}
	return fmt.Sprintf("txn of %d cents", cents), nil
}

func (fakeBank) Refund(context.Context, string) error { return nil }

func Example() {
	dir, err := os.MkdirTemp("", "segno")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := run(context.Background(), filepath.Join(dir, "orders.db")); err != nil {
		log.Fatal(err)
	}
	// Output: done txn of 1250 cents
}
