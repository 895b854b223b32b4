package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite"
)

// openDBOS runs the workflow as a function of three steps. The pool is as large
// as DBOS's own for SQLite; its own pragmas would be the same but for
// synchronous, which it sets to NORMAL.
func openDBOS(path string, s setup) (*engine, error) {
	db, err := openFile(path, 8)
	if err != nil {
		return nil, err
	}
	if _, err = db.Exec("PRAGMA foreign_keys = ON"); err != nil {
		return nil, err
	}
	ctx, err := dbos.NewContext(context.Background(), dbos.Config{
		AppName: "bench", SQLiteSystemDB: db, Logger: slog.New(slog.DiscardHandler), ApplicationVersion: "1",
	})
	if err != nil {
		return nil, err
	}
	flow := dbosFlow(s)
	dbos.RegisterWorkflow(ctx, flow, dbos.WithWorkflowName("three"))
	if err = dbos.Launch(ctx); err != nil {
		return nil, err
	}
	start := func(id string) (func() error, error) {
		h, err := dbos.RunWorkflow(ctx, flow, order{ID: id, Cents: 1250})
		return func() error { _, err := h.GetResult(); return err }, err
	}
	closed := func() error {
		if err := dbos.Shutdown(ctx, 10*time.Second); err != nil {
			return err
		}
		return db.Close()
	}
	return &engine{start: start, close: closed}, nil
}

func dbosFlow(s setup) dbos.Workflow[order, order] {
	return func(ctx dbos.Context, o order) (order, error) {
		var err error
		for _, name := range steps {
			o, err = dbos.RunAsStep(ctx, func(context.Context) (order, error) {
				s.step(name, &o)
				return o, nil
			}, dbos.WithStepName(name))
			if err != nil {
				break
			}
		}
		return o, err
	}
}
