package store

import (
	"context"
	"time"
)

// A Limiter is what is used of a rate limiter's window.
type Limiter struct {
	Name  string
	Start time.Time // of the window
	Until time.Time
	Used  int
	Quota int
	At    time.Time
}

// PutLimiter writes what is used of a window.
func (tx *Tx) PutLimiter(l Limiter) error {
	_, err := tx.do(`INSERT INTO _segno_limiter (name, start, until, used, quota, at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET (start, until, used, quota, at) =
	(excluded.start, excluded.until, excluded.used, excluded.quota, excluded.at)`,
		l.Name, micros(l.Start), micros(l.Until), l.Used, l.Quota, micros(l.At))
	return err
}

// Limiters returns the windows that the file knows, by name.
func (s *Reader) Limiters(ctx context.Context) (map[string]Limiter, error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT name, start, until, used, quota, at FROM _segno_limiter")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]Limiter{}
	for rows.Next() {
		var l Limiter
		if err := rows.Scan(&l.Name, at{&l.Start}, at{&l.Until}, &l.Used, &l.Quota, at{&l.At}); err != nil {
			return nil, err
		}
		all[l.Name] = l
	}
	return all, rows.Err()
}
