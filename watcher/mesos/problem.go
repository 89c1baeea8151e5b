package mesos

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"waggle/model"
)

// fieldError says which field of an object was wrong.
type fieldError struct {
	field, value string
	err          error
}

// Error names the field and says what is wrong with it.
func (e *fieldError) Error() string {
	if e.field == "" {
		return e.err.Error()
	}
	return e.field + ": " + e.err.Error()
}

// Unwrap returns what is wrong, without the field.
func (e *fieldError) Unwrap() error { return e.err }

// readInto decodes raw as far as it can: a field of the wrong type stays zero,
// and the error names the first of them.
func readInto(raw json.RawMessage, v any) error {
	err := json.Unmarshal(raw, v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &fieldError{wrong.Field, wrong.Value, fmt.Errorf("%s where %s should be", wrong.Value, typeName(wrong.Type))}
	}
	return err
}

// readField decodes the value of one field.
func readField(field string, raw json.RawMessage, v any) error {
	err := readInto(raw, v)
	if f, ok := errors.AsType[*fieldError](err); ok && f.field == "" {
		f.field = field
	}
	return err
}

// typeName is what JSON calls the values of t.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Uint16:
		return "number up to 65535"
	case reflect.Int64, reflect.Float64:
		return "number"
	}
	return t.Kind().String()
}

// kindOf is what JSON calls the value that raw begins.
func kindOf(raw []byte) string {
	switch raw[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	}
	return "number"
}

// problem makes a Problem of err about the object with the given id.
func problem(id string, err error) model.Problem {
	p := model.Problem{Task: id, Error: err.Error()}
	if f, ok := errors.AsType[*fieldError](err); ok {
		p.Field, p.Value, p.Error = f.field, f.value, f.err.Error()
	}
	return p
}
