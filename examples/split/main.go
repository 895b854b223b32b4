// Split: three shops are asked for a price side by side. Two answers are enough
// (a quorum): the third shop, which is slow, is cut off, and the best of the two
// is taken. The answer of each shop is durable as it comes, so that a crash asks
// only those again that have not answered. In a second run two shops are down:
// no quorum, and the run fails as soon as that is clear. To read on:
//
//	go run ./examples/split -db split.db
//	sqlite3 -box split.db 'SELECT run, status, error, data FROM segno_runs'
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

const Ask, Buy, Done State = "ask", "buy", "done"

type Purchase struct {
	Item string
	Shop string
	Cent int
}

// An Offer is what a shop answers.
type Offer struct {
	Shop string
	Cent int
}

// A branch is a function of the data; each gets a copy of its own.
func shop(name string, cent int) func(context.Context, Purchase) (Offer, error) {
	return func(_ context.Context, p Purchase) (Offer, error) {
		if p.Item == "a unicorn" {
			return Offer{}, fmt.Errorf("%s does not sell it", name)
		}
		return Offer{name, cent}, nil
	}
}

// slow would take a minute, but watches its context as every step must.
func slow(ctx context.Context, _ Purchase) (Offer, error) {
	select {
	case <-time.After(time.Minute):
		return Offer{"Slowly & Sons", 1}, nil
	case <-ctx.Done():
		fmt.Println("Slowly & Sons are cut off")
		return Offer{}, context.Cause(ctx)
	}
}

// choose sees what has become of each branch, in their order.
func choose(_ context.Context, p *Purchase, all []segno.Settled[Offer]) (State, error) {
	for i, o := range all {
		switch {
		case o.Skipped:
			fmt.Println("shop", i+1, "was not needed")
		case o.Err != nil:
			fmt.Println("shop", i+1, "has failed:", o.Err)
		default:
			fmt.Printf("shop %d, %s, asks for %d cents\n", i+1, o.Value.Shop, o.Value.Cent)
			if p.Shop == "" || o.Value.Cent < p.Cent {
				p.Shop, p.Cent = o.Value.Shop, o.Value.Cent
			}
		}
	}
	return Buy, nil
}

func buy(_ context.Context, p *Purchase) (State, error) {
	fmt.Printf("bought %s from %s for %d cents\n", p.Item, p.Shop, p.Cent)
	return Done, nil
}

var workflow = segno.Workflow[State, Purchase]{Initial: Ask, Steps: segno.Steps[State, Purchase]{
	Ask: {Do: segno.Split(
		segno.Join{Mode: segno.Quorum, N: 2, Timeout: 30 * time.Second, Retry: segno.Fixed(2, 10*time.Millisecond)},
		choose,
		shop("Dear & Co", 1999), slow, shop("Bargain", 1250),
	)},
	Buy:  {Do: buy},
	Done: {Final: true},
}}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-split-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "split.db")
	}
	s := segno.New(db, segno.Options{})
	if err := s.Manual("purchases", workflow); err != nil {
		return err
	}
	running, err := s.Start(ctx)
	if err != nil {
		return err
	}
	purchases, err := segno.Bind(running, "purchases", workflow)
	if err != nil {
		return errors.Join(err, running.Stop(ctx))
	}
	for _, item := range []string{"a lamp", "a unicorn"} {
		id, failed := purchases.Trigger(ctx, Purchase{Item: item})
		if failed == nil {
			_, failed = purchases.Wait(ctx, id)
		}
		if errors.Is(failed, segno.ErrJoin) {
			fmt.Println("no quorum for", item, "-", failed)
			failed = nil
		}
		err = errors.Join(err, failed)
	}
	return errors.Join(err, running.Stop(ctx))
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("split:", err)
	}
}
