package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync/atomic"

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

var states = []string{"reserve", "charge", "ship", "done"}

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

// workflow drives one run through its states.
func workflow(submit func(*move)) {
	o := order{ID: "o-4711", Cents: 1250}
	m := &move{done: make(chan int64, 1)}
	for i, s := range states {
		switch i {
		case 1:
			o.Hold = "h-0001"
		case 2:
			o.Txn = "t-0001"
		case 3:
			o.Cents++
		}
		data, err := json.Marshal(o)
		check(err)
		m.seq, m.state, m.data = int64(i), s, string(data)
		submit(m)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// openRawSingle commits each transition by itself.
func openRawSingle(path string, flight int) (func(context.Context) int64, func() error, error) {
	r, err := openRaw(path)
	if err != nil {
		return nil, nil, err
	}
	turn := make(chan struct{}, 1)
	run := func(ctx context.Context) int64 {
		return clients(flight, func(n *atomic.Int64) {
			for ctx.Err() == nil {
				workflow(func(m *move) {
					turn <- struct{}{}
					r.exec(r.begin)
					r.apply(m)
					r.exec(r.commit)
					<-turn
				})
				n.Add(1)
			}
		})
	}
	return run, r.close, nil
}

// openRawGroup commits together what is queued.
func openRawGroup(path string, flight int) (func(context.Context) int64, func() error, error) {
	r, err := openRaw(path)
	if err != nil {
		return nil, nil, err
	}
	queue, ended := make(chan *move, 2048), make(chan struct{})
	go func() {
		defer close(ended)
		r.group(queue)
	}()
	run := func(ctx context.Context) int64 {
		return clients(flight, func(n *atomic.Int64) {
			for ctx.Err() == nil {
				workflow(func(m *move) {
					queue <- m
					<-m.done
				})
				n.Add(1)
			}
		})
	}
	return run, func() error { close(queue); <-ended; return r.close() }, nil
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
