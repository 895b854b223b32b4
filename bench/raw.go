package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	_ "modernc.org/sqlite"
)

// The raw loops do what a careful person would write by hand for this one
// workflow: two tables, two prepared statements per transition, JSON, nothing
// else: no flows, no epoch, no retries, no timers.
const rawSchema = `
CREATE TABLE runs (run INTEGER PRIMARY KEY, seq INTEGER NOT NULL, state TEXT NOT NULL, data TEXT NOT NULL) STRICT;
CREATE TABLE log (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL, data TEXT) STRICT;`

const rawDSN = "file:%s?_busy_timeout=5000&_journal_mode=WAL&_synchronous=FULL&_txlock=immediate&_pragma=wal_autocheckpoint(4000)&_pragma=cache_size(-65536)"

// raw is one connection with its statements.
type raw struct {
	db                            *sql.DB
	conn                          *sql.Conn
	begin, commit, create, up, in *sql.Stmt
	next                          int64
}

func openRaw(path string) (*raw, error) {
	db, err := sql.Open("sqlite", fmt.Sprintf(rawDSN, path))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	r := &raw{db: db}
	if r.conn, err = db.Conn(ctx); err != nil {
		return nil, err
	}
	if _, err = r.conn.ExecContext(ctx, rawSchema); err != nil {
		return nil, err
	}
	for text, stmt := range map[string]**sql.Stmt{
		"BEGIN IMMEDIATE": &r.begin, "COMMIT": &r.commit,
		"INSERT INTO runs (run, seq, state, data) VALUES (?, 1, ?, ?)":                 &r.create,
		"UPDATE runs SET seq = seq + 1, state = ?, data = ? WHERE run = ? AND seq = ?": &r.up,
		"INSERT INTO log (run, seq, state, data) VALUES (?, ?, ?, ?)":                  &r.in,
	} {
		if *stmt, err = r.conn.PrepareContext(ctx, text); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *raw) close() error {
	for _, s := range []*sql.Stmt{r.begin, r.commit, r.create, r.up, r.in} {
		_ = s.Close()
	}
	_ = r.conn.Close()
	return r.db.Close()
}

// move is one transition: seq 0 creates the run.
type move struct {
	run, seq int64
	state    string
	data     string
	done     chan int64
}

func (r *raw) apply(m *move) {
	ctx := context.Background()
	var err error
	if m.seq == 0 {
		r.next++
		m.run = r.next
		_, err = r.create.ExecContext(ctx, m.run, m.state, m.data)
	} else {
		_, err = r.up.ExecContext(ctx, m.state, m.data, m.run, m.seq)
	}
	if err == nil {
		_, err = r.in.ExecContext(ctx, m.run, m.seq, m.state, m.data)
	}
	check(err)
}

func (r *raw) exec(s *sql.Stmt) {
	_, err := s.ExecContext(context.Background())
	check(err)
}

// workflow starts a run, and returns what drives it through its states.
func workflow(s setup, id string, submit func(*move)) (func() error, error) {
	o := order{ID: id, Cents: 1250}
	m := &move{done: make(chan int64, 1)}
	enter := func(seq int, state string) error {
		data, err := json.Marshal(o)
		if err == nil {
			m.seq, m.state, m.data = int64(seq), state, string(data)
			submit(m)
		}
		return err
	}
	return func() error {
		for i, name := range steps {
			s.step(name, &o)
			next, more := after(name)
			if !more {
				next = "done"
			}
			if err := enter(i+1, next); err != nil {
				return err
			}
		}
		return nil
	}, enter(0, steps[0])
}

// openRawSingle commits each transition by itself.
func openRawSingle(path string, s setup) (*engine, error) {
	r, err := openRaw(path)
	if err != nil {
		return nil, err
	}
	turn := make(chan struct{}, 1)
	start := func(id string) (func() error, error) {
		return workflow(s, id, func(m *move) {
			turn <- struct{}{}
			r.exec(r.begin)
			r.apply(m)
			r.exec(r.commit)
			<-turn
		})
	}
	return &engine{start: start, close: r.close}, nil
}

// openRawGroup commits together what is queued.
func openRawGroup(path string, s setup) (*engine, error) {
	r, err := openRaw(path)
	if err != nil {
		return nil, err
	}
	queue, ended := make(chan *move, 2048), make(chan struct{})
	go func() {
		defer close(ended)
		r.group(queue)
	}()
	start := func(id string) (func() error, error) {
		return workflow(s, id, func(m *move) {
			queue <- m
			<-m.done
		})
	}
	return &engine{start: start, close: func() error { close(queue); <-ended; return r.close() }}, nil
}

func (r *raw) group(queue <-chan *move) {
	var batch []*move
	for m := range queue {
		batch = append(batch[:0], m)
	drain:
		for len(batch) < 500 {
			select {
			case m, ok := <-queue:
				if !ok {
					break drain
				}
				batch = append(batch, m)
			default:
				break drain
			}
		}
		r.exec(r.begin)
		for _, m := range batch {
			r.apply(m)
		}
		r.exec(r.commit)
		for _, m := range batch {
			m.done <- m.run
		}
	}
}
