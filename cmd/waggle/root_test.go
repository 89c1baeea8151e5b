package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestOnlyAnEndThatWasAskedForIsSuccess(t *testing.T) {
	stopped, failed := context.Canceled, errors.New("pins not removed")
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, true},
		{stopped, true},
		{fmt.Errorf("run: %w", stopped), true},
		{errors.Join(stopped, nil), true},
		{errors.Join(stopped, errors.Join(stopped)), true},
		{failed, false},
		{errors.Join(stopped, failed), false},
		{errors.Join(errors.Join(stopped, failed), stopped), false},
	} {
		if got := cancelled(tt.err); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.err, got, tt.want)
		}
	}
}
