package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/segnodev/segno"
)

// account is what has an amount of one unit.
type account struct{ name, unit string }

// postings are what was booked for one order.
type postings struct {
	sums  map[account]int64
	moves map[string]int // postings of each kind of move
}

func (p *proof) postings(ctx context.Context) (map[int]postings, error) {
	orders := map[int]postings{}
	err := p.rows(ctx, "SELECT order_id, what, account, unit, amount FROM demo_posting", func(scan func(...any) error) error {
		var order int
		var what string
		var a account
		var amount int64
		err := scan(&order, &what, &a.name, &a.unit, &amount)
		if _, ok := orders[order]; !ok {
			orders[order] = postings{map[account]int64{}, map[string]int{}}
		}
		orders[order].sums[a] += amount
		orders[order].moves[what]++
		return err
	})
	return orders, err
}

// rollbacks checks the postings of every order against the end of its run.
func (p *proof) rollbacks(ctx context.Context) (string, error) {
	var bad faults
	orders, err := p.postings(ctx)
	if err != nil {
		return "", err
	}
	status := map[segno.RunID]segno.RunStatus{}
	for _, run := range p.of("orders") {
		status[run.ID] = run.Status
	}
	back, refunds := 0, 0
	err = p.rows(ctx, "SELECT id, run FROM demo_order", func(scan func(...any) error) error {
		var order int
		var run segno.RunID
		err := scan(&order, &run)
		switch status[run] {
		case segno.RunCompleted:
			shipped(order, orders[order], &bad)
		case segno.RunFailed:
			back++
			refunds += orders[order].moves["refund"] / 2
			rolledBack(order, orders[order], &bad)
		default:
			bad.add("order %d is %s", order, status[run])
		}
		return err
	})
	if back == 0 {
		bad.add("no order was rolled back")
	}
	return fmt.Sprintf("%d of %d orders: each released its lamp, %d of them refunded its price, all once; the others were charged once",
		back, len(orders), refunds), errors.Join(err, bad.err())
}

// shipped checks an order that was fulfilled: each move once, with two postings.
func shipped(order int, p postings, bad *faults) {
	if len(p.moves) != 3 || p.moves["reserve"] != 2 || p.moves["charge"] != 2 || p.moves["ship"] != 2 {
		bad.add("order %d was shipped with the postings %v", order, p.moves)
	}
}

// rolledBack checks an order that failed: each move once, and once back.
func rolledBack(order int, p postings, bad *faults) {
	for a, sum := range p.sums {
		if sum != 0 {
			bad.add("order %d was rolled back and leaves %d %s on %s", order, sum, a.unit, a.name)
		}
	}
	m := p.moves
	if m["ship"] != 0 || m["reserve"] != 2 || m["release"] != 2 || m["charge"] > 2 || m["charge"] != m["refund"] {
		bad.add("order %d was rolled back with the postings %v", order, m)
	}
}

// conserved checks that every balance is its opening and its postings, and that
// the sum of each unit is what it was.
func (p *proof) conserved(ctx context.Context) (string, error) {
	var bad faults
	orders, err := p.postings(ctx)
	if err != nil {
		return "", err
	}
	booked := map[account]int64{}
	for _, o := range orders {
		for a, sum := range o.sums {
			booked[a] += sum
		}
	}
	opened, now := map[string]int64{}, map[string]int64{}
	err = p.rows(ctx, "SELECT account, unit, opening, amount FROM demo_balance", func(scan func(...any) error) error {
		var a account
		var opening, amount int64
		err := scan(&a.name, &a.unit, &opening, &amount)
		if amount != opening+booked[a] {
			bad.add("%s has %d %s, not %d and %d", a.name, amount, a.unit, opening, booked[a])
		}
		opened[a.unit] += opening
		now[a.unit] += amount
		delete(booked, a)
		return err
	})
	for a := range booked {
		bad.add("postings of %s %s without a balance", a.name, a.unit)
	}
	var text []string
	for unit, sum := range opened {
		if now[unit] != sum {
			bad.add("there are %d %s, there were %d", now[unit], unit, sum)
		}
		text = append(text, fmt.Sprintf("%s %s", thousands(sum), unit))
	}
	slices.Sort(text)
	return fmt.Sprintf("%s at the start and at the end; every balance is the sum of its postings", joinAnd(text)), errors.Join(err, bad.err())
}

func joinAnd(s []string) string {
	if len(s) == 0 {
		return "nothing"
	}
	out := s[0]
	for _, more := range s[1:] {
		out += " and " + more
	}
	return out
}
