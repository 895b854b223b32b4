// Breaker: a bank is down, and after three failures in a row its breaker is open:
// further payments fail at once and do not trouble the bank. It stays open over a
// restart, lets one payment at a time try when its time is over (half-open), and
// closes after two successes. Every attempt also costs one of the five that a
// limiter allows in an hour; what the breaker refuses costs nothing, and the
// sixth payment waits for the next hour, in the file. To read on:
//
//	go run ./examples/breaker -db breaker.db
//	sqlite3 -box breaker.db 'SELECT name, state, error FROM segno_breakers' \
//		'SELECT name, used, quota, until FROM segno_limiters' 'SELECT run, status, error FROM segno_runs'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/segnodev/segno"
)

type State string

const Pay, Paid State = "pay", "paid"

type Payment struct{ Cents int }

// A bank is the other side.
type bank struct {
	down  atomic.Bool
	calls atomic.Int64
}

func (b *bank) pay(context.Context, *Payment) (State, error) {
	if b.calls.Add(1); b.down.Load() {
		return "", errors.New("the bank is down")
	}
	return Paid, nil
}

// A shop is the program: made anew whenever it comes up, as after a crash.
type shop struct {
	running *segno.RunningScheduler
	breaker *segno.Breaker
	quota   *segno.Window
	bank    *bank
}

// open makes a shop. Breaker and quota have names, so their state is in the file.
func open(ctx context.Context, db string, b *bank) (*shop, error) {
	s := &shop{
		breaker: &segno.Breaker{Name: "bank", Failures: 3, Reset: 4 * time.Second, Probes: 2},
		quota:   &segno.Window{Name: "bank", Limit: 5, Per: time.Hour},
		bank:    b,
	}
	workflow := segno.Workflow[State, Payment]{Initial: Pay, Steps: segno.Steps[State, Payment]{
		Pay:  {Do: b.pay, Breaker: s.breaker, Limiter: s.quota},
		Paid: {Final: true},
	}}
	scheduler := segno.New(db, segno.Options{})
	err := scheduler.Add(segno.Flow{ID: "payments", Workflow: workflow, Overlap: segno.Allow(0)})
	if err == nil {
		s.running, err = scheduler.Start(ctx)
	}
	return s, err
}

// pay makes a payment, and tells what comes of it.
func (s *shop) pay(ctx context.Context) error {
	id, err := s.running.Trigger(ctx, "payments", segno.Trigger{Input: Payment{Cents: 1250}})
	if err != nil {
		return err
	}
	info := segno.RunInfo{Status: segno.RunPending}
	for info.Status == segno.RunPending || info.Status == segno.RunRunning { // it ends, or it is parked
		time.Sleep(5 * time.Millisecond)
		if info, err = s.running.Run(ctx, id); err != nil {
			return err
		}
	}
	state, _ := s.breaker.State()
	fmt.Printf("payment %d is %-9s  %-12s  bank called %d times, breaker %s, %d of %d used\n",
		id, info.Status, info.Cause, s.bank.calls.Load(), state, s.quota.Used(), s.quota.Limit)
	return nil
}

// pays makes n payments, one after the other.
func (s *shop) pays(ctx context.Context, n int) (err error) {
	for range n {
		err = errors.Join(err, s.pay(ctx))
	}
	return err
}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-breaker-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "breaker.db")
	}
	b := &bank{}
	b.down.Store(true)
	s, err := open(ctx, db, b)
	if err != nil {
		return err
	}
	if err := errors.Join(s.pays(ctx, 4), s.running.Stop(ctx)); err != nil {
		return err
	}
	fmt.Println("stop, and start again; the bank is well by now, but the breaker has its time")
	b.down.Store(false)
	if s, err = open(ctx, db, b); err != nil {
		return err
	}
	err = s.pays(ctx, 1)
	_, until := s.breaker.State()
	time.Sleep(time.Until(until))
	fmt.Println("its time is over")
	return errors.Join(err, s.pays(ctx, 3), s.running.Stop(ctx))
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("breaker:", err)
	}
}
