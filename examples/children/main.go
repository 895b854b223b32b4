// Children: a trip books its parts one after the other, each as a run of another
// flow, in a loop of one state. When the trip is cancelled in the middle of the
// third booking, that child rolls back first, and then the trip undoes what it
// has: the finished bookings, last first. To read on:
//
//	go run ./examples/children -db children.db
//	sqlite3 -box children.db 'SELECT run, parent, flow, status, state FROM segno_runs'
//	sqlite3 -box children.db 'SELECT id, run, visit, kind, state, status FROM segno_log'
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

// The child: a booking holds a place, and waits for the confirmation.

type BookingState string

const Hold, Confirm, Booked BookingState = "hold", "confirm", "booked"

type Booking struct{ What string }

var booking = segno.Workflow[BookingState, Booking]{Initial: Hold, Steps: segno.Steps[BookingState, Booking]{
	Hold: {
		Do: func(_ context.Context, b *Booking) (BookingState, error) {
			fmt.Println("  booking: hold", b.What)
			return Confirm, nil
		},
		Undo: func(_ context.Context, b Booking) error {
			fmt.Println("  booking: let go of", b.What)
			return nil
		},
	},
	Confirm: {Do: segno.Poll(func(_ context.Context, b *Booking) (BookingState, time.Duration, error) {
		if b.What == "car" { // nobody answers the phone there
			return Confirm, time.Hour, nil
		}
		return Booked, 0, nil
	})},
	Booked: {Final: true},
}}

// The parent: a trip calls a booking for each part.

type TripState string

const Plan, Book, Done TripState = "plan", "book", "done"

type Trip struct{ Parts, Booked []string }

var trip = segno.Workflow[TripState, Trip]{Initial: Plan, Steps: segno.Steps[TripState, Trip]{
	Plan: {
		Do: func(_ context.Context, t *Trip) (TripState, error) {
			fmt.Println("trip: plan", t.Parts)
			return Book, nil
		},
		Undo: func(context.Context, Trip) error {
			fmt.Println("trip: tear up the plan")
			return nil
		},
	},
	Book: {
		Do: segno.Call("bookings", booking, next, booked),
		Undo: func(_ context.Context, t Trip) error { // the data is as this visit left it
			fmt.Println("trip: cancel the", t.Booked[len(t.Booked)-1])
			return nil
		},
		Next: []TripState{Book, Done},
	},
	Done: {Final: true},
}}

// next is the input of the next child.
func next(t Trip) Booking { return Booking{What: t.Parts[len(t.Booked)]} }

// booked is called when the child has ended, however it has.
func booked(_ context.Context, t *Trip, b segno.Run[BookingState, Booking]) (TripState, error) {
	if b.Status != segno.RunCompleted {
		return "", segno.Permanent(fmt.Errorf("booking the %s: %s", b.Data.What, b.Error))
	}
	fmt.Println("trip: has the", b.Data.What)
	t.Booked = append(t.Booked, b.Data.What)
	if len(t.Booked) < len(t.Parts) {
		return Book, nil
	}
	return Done, nil
}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-children-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "children.db")
	}
	s := segno.New(db, segno.Options{})
	if err := errors.Join(s.Manual("trips", trip), s.Manual("bookings", booking)); err != nil {
		return err
	}
	running, err := s.Start(ctx)
	if err != nil {
		return err
	}
	return errors.Join(travel(ctx, running), running.Stop(ctx))
}

// travel cancels the trip when its third booking waits for an answer.
func travel(ctx context.Context, running *segno.RunningScheduler) error {
	id, err := running.Trigger(ctx, "trips", segno.Trigger{Input: Trip{Parts: []string{"flight", "room", "car", "guide"}}})
	for parked := []segno.RunInfo(nil); err == nil && len(parked) == 0; time.Sleep(10 * time.Millisecond) {
		parked, err = running.Runs(ctx, segno.RunFilter{Flow: "bookings", Status: []segno.RunStatus{segno.RunParked}})
	}
	if err != nil {
		return err
	}
	fmt.Println("cancel the trip")
	if err := running.CancelRun(ctx, id); err != nil {
		return err
	}
	if _, err := running.WaitRun(ctx, id); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the trip is not cancelled: %w", err)
	}
	runs, err := running.Runs(ctx, segno.RunFilter{})
	for _, r := range runs { // newest first
		fmt.Printf("run %d of %s, called by %d: %s in %s\n", r.ID, r.Flow, r.Parent, r.Status, r.State)
	}
	return err
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("children:", err)
	}
}
