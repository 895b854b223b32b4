package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// A changed flow is written with the cheapest statement that holds its change:
// none may hold less, whatever changed together.
func TestEveryChangeOfAFlowIsWritten(t *testing.T) {
	s := fresh(t)
	addRun(t, s, "f")
	var fields []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Flow]()) {
		if f.IsExported() && f.Name != "ID" {
			fields = append(fields, f.Name)
		}
	}
	n := 0
	for _, field := range fields {
		// By itself, and with what a run and a slot change on their way.
		for _, with := range [][]string{nil, {"Runs"}, {"Cursor", "Next"}} {
			n++
			var want Flow
			err := s.Update(ctx, func(tx *Tx) error {
				f := tx.Flow("f")
				for _, name := range append(with, field) {
					set(reflect.ValueOf(f).Elem().FieldByName(name), n)
				}
				if field == "Outcome" { // not any text
					f.Outcome = []string{"idle", "completed", "backoff"}[n%3]
				}
				want = *f
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Flow(ctx, "f")
			if err != nil {
				t.Fatal(err)
			}
			got.dirty, want.dirty = false, false
			if got != want {
				t.Errorf("%s, with %v:\ngot  = %+v\nwant = %+v", field, with, got, want)
			}
		}
	}
}

// set gives a field its nth value.
func set(v reflect.Value, n int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.UnixMicro(int64(n) * 1e6).UTC()))
	case time.Duration:
		v.Set(reflect.ValueOf(time.Duration(n) * time.Second))
	case string:
		v.SetString(fmt.Sprint("value ", n))
	default:
		v.SetInt(int64(n))
	}
}
