package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/segnodev/segno"
)

// lookYourself prints commands that show the same with nothing but SQLite.
func (s *supervisor) lookYourself(ctx context.Context) error {
	r, err := segno.OpenReader(ctx, s.cfg.DB)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	// One that a kill has interrupted shows most.
	var back []segno.RunID
	p := proof{r: r}
	err = p.rows(ctx, `SELECT run FROM segno_runs r WHERE flow = 'orders' AND status = 'failed'
ORDER BY EXISTS (SELECT 1 FROM segno_log l WHERE l.run = r.run AND l.kind = 'crash') DESC, run DESC LIMIT 1`, func(scan func(...any) error) error {
		back = append(back, 0)
		return scan(&back[len(back)-1])
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.cfg.Out, "\nSee for yourself:\n\n")
	for _, query := range queries(back) {
		fmt.Fprintf(s.cfg.Out, "  sqlite3 -box %s %s\n", shellWord(s.cfg.DB), shellWord(query))
	}
	return nil
}

// queries are worth a look: the kills, the flows, the ingest, one order that
// was rolled back, and the log of them all.
func queries(back []segno.RunID) []string {
	list := []string{
		"SELECT kill, moment, streak_before, streak_after, window_before, window_after FROM demo_kill",
		"SELECT flow, status, runs, streak, next_run FROM segno_flows",
		"SELECT kind, lines, (SELECT count(*) FROM demo_line l WHERE l.kind = c.kind) AS facts FROM demo_count c",
		"SELECT count(*), count(DISTINCT line), max(line) FROM demo_line",
	}
	for _, run := range back {
		list = append(list,
			fmt.Sprintf("SELECT id, at, visit, kind, state, uncertain, error FROM segno_history WHERE run = %d", run),
			fmt.Sprintf("SELECT account, unit, group_concat(what) AS moves, sum(amount) FROM demo_posting WHERE order_id = (SELECT id FROM demo_order WHERE run = %d) GROUP BY 1, 2", run))
	}
	return append(list,
		"SELECT first, last, count, outcome, reason, run FROM segno_slots WHERE flow = 'report'",
		"SELECT * FROM segno_events",
		"SELECT * FROM segno_log ORDER BY id DESC LIMIT 20",
	)
}

// shellWord makes a text safe to paste into a shell.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	if strings.Contains(s, "'") && !strings.ContainsAny(s, "\"$`\\!") {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
