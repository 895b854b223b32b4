package main

import (
	"context"
	"errors"
	"time"

	"github.com/mikestefanello/backlite"
)

// backliteTask asks for a step. A task adds the next one, and is deleted behind
// that by itself: backlite completes no task in a transaction of the caller's.
type backliteTask message

// Config names the queue.
func (backliteTask) Config() backlite.QueueConfig {
	return backlite.QueueConfig{Name: "steps", MaxAttempts: 5, Backoff: time.Second, Timeout: 10 * time.Second}
}

// openBacklite has one connection: with as many as it likes, its README's way,
// they fight for the lock. It has twice as many workers as workflows, since it
// sleeps 100 ms when all are busy, and one is still busy when it adds a task.
func openBacklite(path string, s setup) (*engine, error) {
	db, err := openFile(path, 1)
	if err != nil {
		return nil, err
	}
	config := backlite.ClientConfig{DB: db, NumWorkers: max(10, 2*s.flight), ReleaseAfter: 10 * time.Minute, CleanupInterval: time.Hour}
	if s.release {
		config.ReleaseAfter = 5 * time.Second
	}
	client, err := backlite.NewClient(config)
	if err != nil {
		return nil, err
	}
	if err = client.Install(); err != nil {
		return nil, err
	}
	e := &ended{}
	client.Register(backlite.NewQueue(func(ctx context.Context, t backliteTask) error {
		s.step(t.Step, &t.Data)
		next, more := after(t.Step)
		if !more {
			e.done(t.Data.ID)
			return nil
		}
		t.Step = next
		_, err := backlite.FromContext(ctx).Add(t).Ctx(ctx).Save()
		return err
	}))
	client.Start(context.Background())
	start := func(id string) (func() error, error) {
		wait := e.expect(id)
		_, err := client.Add(backliteTask{Step: steps[0], Data: order{ID: id, Cents: 1250}}).Save()
		return wait, err
	}
	closed := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if !client.Stop(ctx) {
			return errors.New("backlite did not stop")
		}
		return db.Close()
	}
	return &engine{start: start, close: closed}, nil
}
