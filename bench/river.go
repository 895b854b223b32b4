package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

// riverJob is a job of three resumable steps. River keeps which of them are done;
// the order is a row of the application's, changed in the transaction that says
// so. The transaction of the last step completes the job.
type riverJob struct{ order }

func (riverJob) Kind() string { return "three" }

type riverWorker struct {
	river.WorkerDefaults[riverJob]
	db    *sql.DB
	ended *ended
	setup setup
}

// Work runs the steps that are left.
func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverJob]) error {
	o, err := w.load(ctx, job)
	if err != nil {
		return err
	}
	for _, name := range steps {
		river.ResumableStep(ctx, name, nil, func(ctx context.Context) error {
			w.setup.step(name, &o)
			return w.commit(ctx, job, name, o)
		})
	}
	return nil
}

// load returns the order as the last step has left it.
func (w *riverWorker) load(ctx context.Context, job *river.Job[riverJob]) (o order, err error) {
	if job.Attempt == 1 {
		return job.Args.order, nil
	}
	var data []byte
	switch err = w.db.QueryRowContext(ctx, "SELECT data FROM orders WHERE id = ?", job.Args.ID).Scan(&data); err {
	case sql.ErrNoRows:
		return job.Args.order, nil
	case nil:
		err = json.Unmarshal(data, &o)
	}
	return o, err
}

// commit saves the order and that the step is done.
func (w *riverWorker) commit(ctx context.Context, job *river.Job[riverJob], name string, o order) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	const save = "INSERT INTO orders (id, data) VALUES (?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"
	if _, err = tx.ExecContext(ctx, save, o.ID, data); err != nil {
		return err
	}
	_, more := after(name)
	if more {
		_, err = river.ResumableSetStepTx[*riversqlite.Driver](ctx, tx, job)
	} else {
		_, err = river.JobCompleteTx[*riversqlite.Driver](ctx, tx, job)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err == nil && !more {
		w.ended.done(o.ID)
	}
	return err
}

func openRiver(path string, s setup) (*engine, error) {
	ctx := context.Background()
	db, err := openFile(path, 1) // as its driver's documentation says
	if err != nil {
		return nil, err
	}
	driver := riversqlite.New(db)
	if err = riverSchema(db, driver); err != nil {
		return nil, err
	}
	w := &riverWorker{db: db, ended: &ended{}, setup: s}
	client, err := river.NewClient(driver, riverConfig(w, s))
	if err != nil {
		return nil, err
	}
	if err = client.Start(ctx); err != nil {
		return nil, err
	}
	start := func(id string) (func() error, error) {
		wait := w.ended.expect(id)
		_, err := client.Insert(ctx, riverJob{order{ID: id, Cents: 1250}}, nil)
		return wait, err
	}
	closed := func() error {
		if err := client.Stop(ctx); err != nil {
			return err
		}
		return db.Close()
	}
	return &engine{start: start, close: closed}, nil
}

// riverSchema makes River's tables and the application's own.
func riverSchema(db *sql.DB, driver *riversqlite.Driver) error {
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = migrator.Migrate(context.Background(), rivermigrate.DirectionUp, nil)
	}
	if err == nil {
		_, err = db.Exec("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT, WITHOUT ROWID")
	}
	return err
}

// riverConfig has River look for jobs as often as it can, without which it would
// be measured asleep: by default it does so every 100 ms at most.
func riverConfig(w *riverWorker, s setup) *river.Config {
	workers := river.NewWorkers()
	river.AddWorker(workers, w)
	c := &river.Config{
		Logger: slog.New(slog.DiscardHandler), Workers: workers,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: s.flight + 8}},
		FetchCooldown: time.Millisecond, FetchPollInterval: 10 * time.Millisecond,
	}
	if s.release {
		c.JobTimeout, c.RescueStuckJobsAfter = 5*time.Second, 5*time.Second
	}
	return c
}
