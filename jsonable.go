package segno

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
)

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// jsonable refuses a data type that JSON cannot carry there and back: what is
// lost between two steps is found out at registration, not in production.
func jsonable(t reflect.Type) error { return carries(t, t.String(), map[reflect.Type]bool{}) }

func carries(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	if seen[t] || marshals(t) {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
		return fmt.Errorf("%w: the data cannot be stored: %s is a %s; tag the field `json:\"-\"` or leave it out", ErrConfig, path, t.Kind())
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("%w: the data cannot be read back: %s is the interface %s", ErrConfig, path, t)
		}
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return carries(t.Elem(), path, seen)
	case reflect.Map:
		if k := t.Key(); !marshals(k) && k.Kind() != reflect.String && !integer(k.Kind()) {
			return fmt.Errorf("%w: the data cannot be stored: %s has keys of type %s", ErrConfig, path, k)
		}
		return carries(t.Elem(), path, seen)
	case reflect.Struct:
		return carriesFields(t, path, seen)
	}
	return nil
}

func carriesFields(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	for i := range t.NumField() {
		f := t.Field(i)
		name := path + "." + f.Name
		switch {
		case f.Tag.Get("json") == "-":
			continue
		case !f.IsExported() && !(f.Anonymous && f.Type.Kind() == reflect.Struct):
			return fmt.Errorf("%w: the data would lose %s, which is unexported; export it or tag it `json:\"-\"`", ErrConfig, name)
		}
		if err := carries(f.Type, name, seen); err != nil {
			return err
		}
	}
	return nil
}

func marshals(t reflect.Type) bool {
	for _, m := range []reflect.Type{jsonMarshaler, textMarshaler} {
		if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	return false
}

func integer(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Uint64 }
