package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"maragu.dev/goqite"
)

// goqiteSchema is that of its repository, which the module does not export.
const goqiteSchema = `
create table if not exists goqite (
  id text primary key default ('m_' || lower(hex(randomblob(16)))),
  created text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  updated text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  queue text not null,
  body blob not null,
  timeout text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  received integer not null default 0,
  priority integer not null default 0
) strict;
create trigger if not exists goqite_updated_timestamp after update on goqite begin
  update goqite set updated = strftime('%Y-%m-%dT%H:%M:%fZ') where id = old.id;
end;
create index if not exists goqite_queue_priority_created_idx on goqite (queue, priority desc, created);`

// goqiteHandlers is how many messages are handled at once: those that are
// received and wait for the one connection would otherwise be received again
// after the 5 s of goqite's default.
const goqiteHandlers = 64

// message asks for a step.
type message struct {
	Step string
	Data order
}

// goqiteChain runs the workflow as a chain of messages: the next one is sent in
// the transaction that deletes the one before.
type goqiteChain struct {
	db    *sql.DB
	queue *goqite.Queue
	ended ended
	setup setup
}

func openGoqite(path string, s setup) (*engine, error) {
	db, err := openFile(path, 1) // as its README says
	if err != nil {
		return nil, err
	}
	if _, err = db.Exec(goqiteSchema); err != nil {
		return nil, err
	}
	c := &goqiteChain{db: db, queue: goqite.New(goqite.NewOpts{DB: db, Name: "steps"}), setup: s}
	ctx, stop := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { c.receive(ctx) })
	start := func(id string) (func() error, error) {
		wait := c.ended.expect(id)
		body, err := json.Marshal(message{Step: steps[0], Data: order{ID: id, Cents: 1250}})
		if err == nil {
			err = c.queue.Send(context.Background(), goqite.Message{Body: body})
		}
		return wait, err
	}
	return &engine{start: start, close: func() error { stop(); loop.Wait(); return db.Close() }}, nil
}

// receive hands out messages until the context ends. It looks every millisecond;
// goqite's own runner of jobs does every 100.
func (c *goqiteChain) receive(ctx context.Context) {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	places := make(chan struct{}, min(goqiteHandlers, c.setup.flight))
	for {
		places <- struct{}{}
		m, err := c.queue.ReceiveAndWait(ctx, time.Millisecond)
		if errors.Is(err, context.Canceled) {
			return
		}
		check(err)
		handlers.Go(func() {
			check(c.handle(m))
			<-places
		})
	}
}

func (c *goqiteChain) handle(m *goqite.Message) error {
	var msg message
	if err := json.Unmarshal(m.Body, &msg); err != nil {
		return err
	}
	c.setup.step(msg.Step, &msg.Data)
	next, more := after(msg.Step)
	msg.Step = next
	body, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	ctx := context.Background()
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err = c.queue.DeleteTx(ctx, tx, m.ID); err == nil && more {
		err = c.queue.SendTx(ctx, tx, goqite.Message{Body: body})
	}
	if err == nil {
		err = tx.Commit()
	}
	if err == nil && !more {
		c.ended.done(msg.Data.ID)
	}
	return err
}
