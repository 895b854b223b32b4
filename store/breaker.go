package store

import (
	"context"
	"time"
)

// A Breaker is the durable state of a circuit breaker.
type Breaker struct {
	Name     string
	State    string // closed, open, half_open
	Until    time.Time
	Failures int
	Error    string
	At       time.Time
}

// PutBreaker writes the state of a breaker.
func (tx *Tx) PutBreaker(b Breaker) error {
	_, err := tx.do(`INSERT INTO _segno_breaker (name, state, until, failures, error, at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET (state, until, failures, error, at) =
	(excluded.state, excluded.until, excluded.failures, excluded.error, excluded.at)`,
		b.Name, b.State, micros(b.Until), b.Failures, text(b.Error), micros(b.At))
	return err
}

// Breakers returns the breakers that the file knows, by name.
func (s *Reader) Breakers(ctx context.Context) (map[string]Breaker, error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT name, state, until, failures, error, at FROM _segno_breaker")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]Breaker{}
	for rows.Next() {
		var b Breaker
		if err := rows.Scan(&b.Name, &b.State, at{&b.Until}, &b.Failures, str{&b.Error}, at{&b.At}); err != nil {
			return nil, err
		}
		all[b.Name] = b
	}
	return all, rows.Err()
}
