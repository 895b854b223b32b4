package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"
)

// guarded are queries, each with the word it is refused for, "" if it is allowed.
var guarded = []struct{ query, refused string }{
	{"", ""},
	{";;", ""},
	{" -- only a comment", ""},
	{"/* only a comment", ""},
	{"SELECT 1", ""},
	{"INSERT INTO t VALUES (';', 1); COMMIT", "COMMIT"},
	{"BEGIN", "BEGIN"},
	{"begin immediate", "BEGIN"},
	{"CoMmIt", "COMMIT"},
	{"COMMIT;", "COMMIT"},
	{"END TRANSACTION", "END"},
	{"ROLLBACK", "ROLLBACK"},
	{"ROLLBACK TO segno_user", "ROLLBACK"},
	{"SAVEPOINT s", "SAVEPOINT"},
	{"RELEASE segno_user", "RELEASE"},
	{"ATTACH ':memory:' AS other", "ATTACH"},
	{"DETACH other", "DETACH"},
	{"PRAGMA synchronous = OFF", "PRAGMA"},
	{"VACUUM", "VACUUM"},
	{"\t\r\n\f COMMIT", "COMMIT"},
	{";COMMIT", "COMMIT"},
	{"--;\nCOMMIT", "COMMIT"},
	{"-- one\n-- two\nCOMMIT", "COMMIT"},
	{"/* ; */COMMIT", "COMMIT"},
	{"/**/ /*/ */ COMMIT", "COMMIT"},
	{"SELECT 1;COMMIT", "COMMIT"},
	{"SELECT 1 /* ; */ ; /* */ -- \n COMMIT", "COMMIT"},
	{"SELECT ''';'; COMMIT", "COMMIT"},
	{`SELECT 1 AS ";"";"; COMMIT`, "COMMIT"},
	{"SELECT 1 AS `;`; COMMIT", "COMMIT"},
	{"SELECT 1 AS [;]; COMMIT", "COMMIT"},
	{"SELECT x'00'; COMMIT", "COMMIT"},
	{"\ufeffCOMMIT", "COMMIT"},
	{"SELECT 1; \ufeff COMMIT", "COMMIT"},
	{"SELECT $a('); COMMIT; SELECT $a(')", "COMMIT"},
	{"SELECT @a::b('); COMMIT; --')", "COMMIT"},
	{"SELECT :a, ?1, $b, #c; COMMIT", "COMMIT"},
	{"SELECT ';COMMIT'", ""},
	{`SELECT ";COMMIT"`, ""},
	{"SELECT [;COMMIT]", ""},
	{"SELECT 1 -- ; COMMIT", ""},
	{"SELECT 1 /* ; COMMIT", ""},
	{"SELECT 'open; COMMIT", ""},
	{"SELECT $a(;COMMIT;)", ""},
	{"INSERT INTO commit_log VALUES (1)", ""},
	{"INSERT OR ROLLBACK INTO t VALUES (1)", ""},
	{"WITH c AS (SELECT 1) SELECT * FROM c", ""},
	{"EXPLAIN QUERY PLAN SELECT 1", ""},
	{"CREATE TABLE t (a, b)", ""},
	{"CREATE TABLE u (a); COMMIT", "COMMIT"},
	{"CREATE TEMP TABLE t2 (a); PRAGMA user_version", "PRAGMA"},
	{"CREATE INDEX i ON t (a); COMMIT", "COMMIT"},
	{"CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", ""},
	{"create temporary trigger g after insert on t begin select 1; select 2; end; select 3", ""},
	{"CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT CASE WHEN 1 THEN 2 END; SELECT RAISE(ROLLBACK, 'x'); END;", ""},
	{"CREATE TRIGGER g AFTER INSERT ON t WHEN CASE 1 WHEN 1 THEN 1 END BEGIN UPDATE t SET a = 'END;'; END; COMMIT", "COMMIT"},
	{"CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; /* END */ END; COMMIT", "COMMIT"},
	{"CREATE TRIGGER IF NOT EXISTS main.g BEFORE DELETE ON t BEGIN SELECT 1;END;COMMIT", "COMMIT"},
}

func TestAllowed(t *testing.T) {
	for _, tt := range guarded {
		err := allowed(tt.query)
		if tt.refused == "" {
			if err != nil {
				t.Errorf("%q: got = %v, want nil", tt.query, err)
			}
			continue
		}
		says(t, err, ErrTx, ": "+tt.refused+";", "shared with others")
	}
}

// escapes runs a query as the writer would, in a transaction that is not its
// own, and returns what of it SQLite was asked to do that the guard is there to
// prevent.
func escapes(t *testing.T, query string) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file::memory:?_dqs=0")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "CREATE TABLE t (a, b); BEGIN; SAVEPOINT segno_user"); err != nil {
		t.Fatal(err)
	}
	var escaped atomic.Pointer[string]
	authorize := func(action sqlite.AuthorizerActionCode, arg1, arg2, _, _ string) sqlite.AuthorizerReturnCode {
		switch action {
		case sqlite.AuthPragma:
			if strings.Contains(strings.ToLower(query), "pragma_") {
				return sqlite.AuthorizerOK // a table-valued function; it can only read
			}
		case sqlite.AuthTransaction, sqlite.AuthSavepoint, sqlite.AuthAttach, sqlite.AuthDetach:
		default:
			return sqlite.AuthorizerOK
		}
		what := fmt.Sprint(action, " ", arg1, " ", arg2)
		escaped.CompareAndSwap(nil, &what)
		return sqlite.AuthorizerOK
	}
	register := func(fn sqlite.AuthorizerFn) {
		if err := conn.Raw(func(c any) error { return c.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(fn) }); err != nil {
			t.Fatal(err)
		}
	}
	register(authorize)
	limited, cancel := context.WithTimeout(ctx, time.Second) // a query may be endless
	defer cancel()
	var args []any
	for _, name := range []string{"a", "b", "c", "a(')", "a::b(')", "a(;COMMIT;)"} {
		args = append(args, sql.Named(name, 1))
	}
	_, _ = conn.ExecContext(limited, query, args...)
	register(nil)
	if what := escaped.Load(); what != nil {
		return *what
	}
	return ""
}

// The table above is what SQLite makes of it, too.
func TestAllowedAgreesWithSQLite(t *testing.T) {
	for _, tt := range guarded {
		if tt.refused == "VACUUM" {
			continue // it is refused by SQLite in a transaction
		}
		if got := escapes(t, tt.query); (got != "") != (tt.refused != "") {
			t.Errorf("%q: got = %q done by SQLite, want refused: %q", tt.query, got, tt.refused)
		}
	}
}

// FuzzAllowed looks for a query that gets past the guard with a statement that
// it should refuse. Everything that is refused must say why.
func FuzzAllowed(f *testing.F) {
	for _, tt := range guarded {
		f.Add(tt.query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if err := allowed(query); err != nil {
			says(t, err, ErrTx, "shared with others")
			return
		}
		if got := escapes(t, query); got != "" {
			t.Errorf("%q is allowed, and SQLite does: %s", query, got)
		}
	})
}
