package store

import "database/sql"

// statement returns the prepared statement of a text. The texts are few: parsing
// one takes longer than running it.
func (w *writer) statement(query string) (*sql.Stmt, error) {
	if stmt := w.byText[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := w.conn.PrepareContext(background, query)
	if err != nil {
		return nil, err
	}
	if w.byText == nil {
		w.byText = map[string]*sql.Stmt{}
	}
	w.byText[query] = stmt
	w.stmts = append(w.stmts, stmt)
	return stmt, nil
}

// do runs a statement that is prepared when it is first needed.
func (tx *Tx) do(query string, args ...any) (int64, error) {
	stmt, err := tx.w.statement(query)
	if err != nil {
		return 0, tx.note(err)
	}
	n, err := tx.exec(stmt, args...)
	tx.wrote = tx.wrote || err == nil
	return n, err
}

// rows runs a query that is prepared when it is first needed.
func (tx *Tx) rows(query string, args ...any) (*sql.Rows, error) {
	stmt, err := tx.w.statement(query)
	if err != nil {
		return nil, tx.note(err)
	}
	rows, err := stmt.QueryContext(background, args...)
	return rows, tx.note(err)
}

// row is rows for a query of one row.
func (tx *Tx) row(query string, args ...any) *sql.Row {
	stmt, err := tx.w.statement(query)
	if err != nil {
		return tx.Refuse(tx.note(err))
	}
	return stmt.QueryRowContext(background, args...)
}
