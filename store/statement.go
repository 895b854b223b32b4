package store

import (
	"database/sql"
	"database/sql/driver"

	"github.com/segnodev/segno/engine"
)

// A statement changes the file. It is prepared once, and run by the driver
// itself: what database/sql does with the arguments on the way there, it copies
// them and looks up the type of each, costs a tenth of a transition.
type statement struct {
	conn   *sql.Conn
	stmt   driver.Stmt
	args   []driver.NamedValue // of the execution in progress
	result driver.Result       // of the last one
	run    func(any) error     // executes it, in the hands of Raw
}

// statement returns the prepared statement of a text. The texts are few: parsing
// one takes longer than running it.
func (w *writer) statement(query string) (*statement, error) {
	if s := w.changes[query]; s != nil {
		return s, nil
	}
	s := &statement{conn: w.conn}
	err := w.conn.Raw(func(conn any) (err error) {
		s.stmt, err = conn.(driver.ConnPrepareContext).PrepareContext(background, query)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.run = func(any) (err error) {
		s.result, err = s.stmt.(driver.StmtExecContext).ExecContext(background, s.args)
		return err
	}
	if w.changes == nil {
		w.changes = map[string]*statement{}
	}
	w.changes[query] = s
	return s, nil
}

// exec runs the statement and returns the number of rows it changed.
func (s *statement) exec(args ...any) (int64, error) {
	s.args = s.args[:0]
	for i, arg := range args {
		value, err := valueOf(arg)
		if err != nil {
			return 0, err
		}
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: value})
	}
	if err := s.conn.Raw(s.run); err != nil {
		return 0, err
	}
	return s.result.RowsAffected()
}

func (s *statement) close() error {
	return s.conn.Raw(func(any) error { return s.stmt.Close() })
}

// valueOf makes an argument what the driver takes.
func valueOf(arg any) (driver.Value, error) {
	switch v := arg.(type) {
	case nil, int64, string, bool:
		return v, nil
	case int:
		return int64(v), nil
	case engine.Status:
		return string(v), nil
	case engine.Kind:
		return string(v), nil
	}
	return driver.DefaultParameterConverter.ConvertValue(arg)
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

// query returns the prepared query of a text.
func (w *writer) query(text string) (*sql.Stmt, error) {
	if stmt := w.queries[text]; stmt != nil {
		return stmt, nil
	}
	stmt, err := w.conn.PrepareContext(background, text)
	if err != nil {
		return nil, err
	}
	if w.queries == nil {
		w.queries = map[string]*sql.Stmt{}
	}
	w.queries[text] = stmt
	return stmt, nil
}

// rows runs a query that is prepared when it is first needed.
func (tx *Tx) rows(query string, args ...any) (*sql.Rows, error) {
	stmt, err := tx.w.query(query)
	if err != nil {
		return nil, tx.note(err)
	}
	rows, err := stmt.QueryContext(background, args...)
	return rows, tx.note(err)
}

// row is rows for a query of one row.
func (tx *Tx) row(query string, args ...any) *sql.Row {
	stmt, err := tx.w.query(query)
	if err != nil {
		return tx.Refuse(tx.note(err))
	}
	return stmt.QueryRowContext(background, args...)
}
