package store

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkPrune is what one request for pruning costs in a file with many runs of
// three entries each: how long the writer is held, from its first statement to the
// end of its commit. A request that changes one row is held beside it, for what any
// commit takes.
func BenchmarkPrune(b *testing.B) {
	b.Run("1KiB", func(b *testing.B) { benchmarkPrune(b, 100_000, 1<<10) })
	b.Run("64KiB", func(b *testing.B) { benchmarkPrune(b, 5000, 64<<10) })
}

func benchmarkPrune(b *testing.B, runs, data int) {
	s, err := tryOpen(filepath.Join(b.TempDir(), "a.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close(); _ = s.Release() }()
	crowd(b, s, runs, 3, data)
	var after int64
	var one, prune []time.Duration
	for b.Loop() {
		runs, doomed := nextChunk(b, s, after)
		if len(runs) == 0 {
			b.Fatalf("the file is empty after %d chunks; use fewer with -benchtime", len(prune))
		}
		after = runs[len(runs)-1].Run
		prune = append(prune, holding(b, s, func(tx *Tx) error { return tx.Prune(doomed) }))
		one = append(one, holding(b, s, func(tx *Tx) error {
			_, err := tx.do("UPDATE _segno_owner SET suspect_for = suspect_for + 1")
			return err
		}))
	}
	for _, m := range []struct {
		of   []time.Duration
		name string
	}{{prune, "prune"}, {one, "one-row"}} {
		slices.Sort(m.of)
		b.ReportMetric(m.of[len(m.of)/2].Seconds()*1e3, "ms/"+m.name)
		b.ReportMetric(m.of[len(m.of)*99/100].Seconds()*1e3, "ms/"+m.name+"-p99")
	}
}

// holding returns how long a request holds the writer.
func holding(t testing.TB, s *Store, fn func(*Tx) error) (d time.Duration) {
	t.Helper()
	err := s.Update(ctx, func(tx *Tx) error {
		start := time.Now()
		tx.After(func() { d = time.Since(start) })
		return fn(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// nextChunk reads the next runs that fit in one request.
func nextChunk(t testing.TB, s *Store, after int64) ([]Surplus, []Doomed) {
	t.Helper()
	runs, err := s.Surplus(ctx, 1, after, Keep{Runs: 1, Completed: time.Now(), Failed: time.Now()}, PruneRows/4)
	if err != nil {
		t.Fatal(err)
	}
	var doomed []Doomed
	for _, r := range runs {
		links, err := s.Links(ctx, r.Last, 0)
		if err != nil {
			t.Fatal(err)
		}
		doomed = append(doomed, Doomed{r.Run, r.Seq, links})
	}
	return runs, doomed
}

// crowd fills a file with runs of flow "f" that have completed, a microsecond
// apart, each with so many entries, the first and the last of them with data.
func crowd(t testing.TB, s *Store, runs, entries, data int) {
	t.Helper()
	err := s.write(func(tx *Tx) error {
		for _, q := range []string{
			`INSERT INTO _segno_flow (id, position, schedule, registered, runs) VALUES ('f', 0, '', 1, ?1 + 0 * ?2 * ?3)`,
			`INSERT INTO _segno_run (run, flow, seq, status, version, nonce, key, state, visit, attempt, entered, data, first, last, created, started, ended)
WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
SELECT i, 1, ?2, 'completed', 1, hex(randomblob(16)), 'key ' || i, 'z', ?2, 1, 1, '"' || hex(zeroblob(?3 / 2)) || '"', (i - 1) * ?2 + 1, i * ?2, i, i, i + 1 FROM n`,
			`INSERT INTO _segno_journal (id, run, visit, kind, state, attempt, version, at, data, prev)
WITH RECURSIVE n (i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1 * ?2)
SELECT i + 1, i / ?2 + 1, i % ?2 + 1, CASE i % ?2 WHEN ?2 - 1 THEN 'end' ELSE 'enter' END, 'a', 1, 1, i / ?2,
	CASE WHEN i % ?2 IN (0, ?2 - 1) THEN '"' || hex(zeroblob(?3 / 2)) || '"' END, nullif(i % ?2, 0) + i - i % ?2 FROM n`,
		} {
			if _, err := tx.Exec(q, runs, entries, data); err != nil {
				return err
			}
		}
		tx.w.nextRun, tx.w.nextEntry = int64(runs)+1, int64(runs*entries)+1
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
