package store

import (
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkPrune is what one request for pruning costs in a file with 100,000
// runs of three entries each, 1 KiB of data in two of them: how long others wait.
func BenchmarkPrune(b *testing.B) {
	s, err := tryOpen(filepath.Join(b.TempDir(), "a.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close(); _ = s.Release() }()
	crowd(b, s, 100_000, 3, 1024)
	var after int64
	var held, worst time.Duration
	chunks := 0
	for b.Loop() {
		b.StopTimer()
		runs, doomed := nextChunk(b, s, after)
		if len(runs) == 0 {
			b.Fatalf("the file is empty after %d chunks; use fewer with -benchtime", chunks)
		}
		after = runs[len(runs)-1].Run
		b.StartTimer()
		err := s.Update(ctx, func(tx *Tx) error {
			start := time.Now()
			err := tx.Prune(doomed)
			took := time.Since(start)
			held, worst = held+took, max(worst, took)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		chunks++
	}
	b.ReportMetric(float64(held.Microseconds())/float64(chunks)/1e3, "ms/statements")
	b.ReportMetric(float64(worst.Microseconds())/1e3, "ms/worst")
	b.ReportMetric(PruneRows, "rows/op")
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
