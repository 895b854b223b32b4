//go:build unix

package segno_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/segnodev/segno"
)

var killUpdate = flag.Bool("update", false, "write testdata/history.golden anew")

// killOrder is an order; Name says what becomes of it.
type killOrder struct {
	Name string
	Hold string `json:",omitempty"`
	Paid int    `json:",omitempty"`
}

// killOrders are the orders, one after the other. A life ends where the text
// says so.
var killOrders = []string{
	"smooth", "card reader offline", "out of stock", "refund refused", "changed mind", "dies while charging", "dies while refunding",
}

func (c *killChild) orderFlow() segno.Workflow[killState, killOrder] {
	stay := func(o killOrder, what string) bool {
		if dies := o.Name == "dies while "+what; !dies || c.Life > map[string]int{"charging": 1, "refunding": 2}[what] {
			return false
		}
		c.say(killEvent{What: "stays"})
		select {}
	}
	charge := func(ctx context.Context, o *killOrder) (killState, error) {
		if stay(*o, "charging") {
			return "", nil
		}
		if o.Name == "card reader offline" && segno.InfoFrom(ctx).Attempt == 1 {
			return "", errors.New("card reader offline")
		}
		o.Paid = 1299
		return "ship", nil
	}
	refund := func(_ context.Context, o killOrder) error {
		if stay(o, "refunding"); o.Name == "refund refused" {
			return errors.New("the bank refuses: account closed")
		}
		return nil
	}
	ship := func(ctx context.Context, o *killOrder) (killState, error) {
		switch o.Name {
		case "changed mind":
			c.say(killEvent{What: "ships", Run: segno.InfoFrom(ctx).Run})
			<-ctx.Done()
			return "", context.Cause(ctx)
		case "out of stock", "refund refused", "dies while refunding":
			return "", errors.New("out of stock")
		}
		return "done", nil
	}
	return segno.Workflow[killState, killOrder]{Initial: "reserve", Steps: segno.Steps[killState, killOrder]{
		"reserve": {
			Do:   func(_ context.Context, o *killOrder) (killState, error) { o.Hold = "H-7"; return "charge", nil },
			Undo: func(context.Context, killOrder) error { return nil },
		},
		"charge": {Do: charge, Undo: refund, Retry: segno.Exponential(3)},
		"ship":   {Do: ship},
		"done":   {Final: true},
	}}
}

// killHistory works on one order at a time, so that the journal has one order.
func killHistory(c *killChild) {
	ctx := context.Background()
	s := segno.New(c.Path, c.options())
	c.check(s.Manual("orders", c.orderFlow()))
	c.check(s.Manual("report", segno.Workflow[killState, killData]{Initial: "print", Steps: killSteps{
		"print": {Do: func(context.Context, *killData) (killState, error) { return "", errors.New("no paper") }},
		"done":  {Final: true},
	}}))
	r := c.start(s)
	for _, run := range c.open(r) {
		_, _ = r.WaitRun(ctx, run.ID)
	}
	id, err := r.Trigger(ctx, "report", segno.Trigger{Key: "report"})
	c.check(err)
	_, _ = r.WaitRun(ctx, id)
	for _, name := range killOrders {
		id, err := r.Trigger(ctx, "orders", segno.Trigger{Key: name, Input: killOrder{Name: name}})
		c.check(err)
		if name == "changed mind" {
			c.until(func() bool {
				run, err := r.Run(ctx, id)
				c.check(err)
				return run.State == "ship"
			})
			if err := r.CancelRun(ctx, id); !errors.Is(err, segno.ErrEnded) {
				c.check(err)
			}
		}
		_, _ = r.WaitRun(ctx, id)
	}
	c.check(r.Stop(ctx))
}

var killTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)

// TestKillHistoryReadsAsALog compares what the sqlite3 shell prints for runs
// that completed, failed, rolled back, were cancelled and resumed with
// testdata/history.golden.
func TestKillHistoryReadsAsALog(t *testing.T) {
	rig := newKillRig(t, killPlan{Scenario: "history"})
	for range 2 {
		l := rig.start()
		l.until("stays", 1)
		l.kill()
	}
	rig.start().ends()
	var got bytes.Buffer
	ask := func(query string) {
		fmt.Fprintf(&got, "$ sqlite3 app.db '%s'\n%s\n", query, killTime.ReplaceAllString(killSQLite3(t, rig.plan.Path, query), "TIME"))
	}
	for run := range len(killOrders) + 1 {
		ask(fmt.Sprintf("SELECT * FROM segno_history WHERE run = %d", run+1))
	}
	ask("SELECT * FROM segno_log ORDER BY id DESC LIMIT 20")
	golden := filepath.Join("testdata", "history.golden")
	if *killUpdate {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant (testdata/history.golden, made by go test -run %s -update)\n%s", got.String(), t.Name(), want)
	}
	for _, status := range []string{"completed", "failed", "undo_failed", "cancelled"} {
		n := 0
		for _, h := range rig.left {
			if h.status == status {
				n++
			}
		}
		if n == 0 {
			t.Errorf("got no run that is %s", status)
		}
	}
	if strings.Contains(got.String(), rig.plan.Path) {
		t.Error("the output names a path of this machine")
	}
}
