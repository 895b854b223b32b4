package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno"
)

// Order is the data of a run that fulfils an order.
type Order struct {
	ID       int    `json:"id"`
	Customer string `json:"customer"`
	Address  string `json:"address,omitempty"` // without one the carrier refuses
	Cents    int64  `json:"cents"`
}

// States of an order.
const (
	Reserve State = "reserve"
	Charge  State = "charge"
	Ship    State = "ship"
	Shipped State = "shipped"
)

const (
	orderTime = 150 * time.Millisecond
	undoTime  = 200 * time.Millisecond
)

// orders is the workflow behind the flow "orders": a saga.
func (w *worker) orders() segno.Workflow[State, Order] {
	return segno.Workflow[State, Order]{
		Version: 1,
		Initial: Reserve,
		Timeout: 10 * time.Minute,
		Steps: segno.Steps[State, Order]{
			Reserve: {Do: reserve, Undo: release, Next: []State{Charge}},
			Charge:  {Do: charge, Undo: refund, Next: []State{Ship}},
			Ship:    {Do: ship, Next: []State{Shipped}},
			Shipped: {Final: true},
		},
	}
}

// A move takes an amount from one account to another.
type move struct {
	what, unit, from, to string
	amount               int64
}

// book joins a move to the commit that settles the step: two postings, and the
// balances brought up to date. It fails if the account would be overdrawn.
func book(ctx context.Context, order int, m move) error {
	return segno.OnCommit(ctx, func(tx segno.Tx) error {
		var has int64
		if err := tx.QueryRow("SELECT amount FROM demo_balance WHERE account = ? AND unit = ?", m.from, m.unit).Scan(&has); err != nil {
			return err
		}
		if has < m.amount {
			return fmt.Errorf("%s has %d %s, not the %d to %s", m.from, has, m.unit, m.amount, m.what)
		}
		return errors.Join(post(tx, order, m, m.from, -m.amount), post(tx, order, m, m.to, +m.amount))
	})
}

func post(tx segno.Tx, order int, m move, account string, amount int64) error {
	_, err := tx.Exec("INSERT INTO demo_posting (order_id, what, account, unit, amount) VALUES (?, ?, ?, ?, ?)",
		order, m.what, account, m.unit, amount)
	_, kept := tx.Exec(`INSERT INTO demo_balance (account, unit, opening, amount) VALUES (?, ?, 0, ?)
ON CONFLICT (account, unit) DO UPDATE SET amount = amount + excluded.amount`, account, m.unit, amount)
	return errors.Join(err, kept)
}

func reserve(ctx context.Context, o *Order) (State, error) {
	if err := pause(ctx, orderTime); err != nil {
		return "", err
	}
	return Charge, book(ctx, o.ID, move{"reserve", "lamps", "shelf", "counter", 1})
}

func release(ctx context.Context, o Order) error {
	if err := pause(ctx, undoTime); err != nil {
		return err
	}
	return book(ctx, o.ID, move{"release", "lamps", "counter", "shelf", 1})
}

func charge(ctx context.Context, o *Order) (State, error) {
	if err := pause(ctx, orderTime); err != nil {
		return "", err
	}
	return Ship, book(ctx, o.ID, move{"charge", "cents", o.Customer, "shop", o.Cents})
}

func refund(ctx context.Context, o Order) error {
	if err := pause(ctx, undoTime); err != nil {
		return err
	}
	return book(ctx, o.ID, move{"refund", "cents", "shop", o.Customer, o.Cents})
}

func ship(ctx context.Context, o *Order) (State, error) {
	if err := pause(ctx, orderTime); err != nil {
		return "", err
	}
	if o.Address == "" {
		return "", fmt.Errorf("the carrier refuses order %d: no address", o.ID)
	}
	return Shipped, book(ctx, o.ID, move{"ship", "lamps", "counter", o.Customer, 1})
}

// customers take turns in ordering. The last one cannot pay for much.
var customers = []struct {
	name  string
	cents int64
}{{"ada", 100_000}, {"grace", 100_000}, {"edsger", 100_000}, {"barbara", 9_000}}

// orderOf makes up the nth order: every third has no address.
func orderOf(n int) Order {
	o := Order{ID: n, Customer: customers[n%len(customers)].name, Address: fmt.Sprintf("%d Main Street", n), Cents: 4000 + int64(n%7)*250}
	if n%3 == 0 {
		o.Address = ""
	}
	return o
}
