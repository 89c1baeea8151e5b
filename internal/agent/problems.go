package agent

import (
	"fmt"
	"slices"
	"time"

	"waggle/model"
)

// Problems returns what was wrong in the input, or did not fit into the kernel,
// and cost only itself, and the backends that are ejected, in the order of the stages that found it.
func (s *State) Problems() []model.Problem {
	out := append(s.Snapshot.AllProblems(), s.Table.Problems()...)
	for _, e := range slices.Concat(s.Unsupported, s.Failed) {
		out = append(out, model.Problem{
			Field: "vip", Value: e.Frontend.Addr.String() + "/" + e.Frontend.Proto.String(), Error: e.Err.Error(),
		})
	}
	var ejected []model.Problem
	for f, list := range s.Plan.AllEjected() {
		for addr, e := range list {
			ejected = append(ejected, model.Problem{
				Field: "backend", Value: addr.String(), Error: fmt.Sprintf("left out of %s/%s until %s: %s", f.Addr, f.Proto, e.Until.Format(time.TimeOnly), e.Reason()),
			})
		}
	}
	slices.SortFunc(ejected, model.Problem.Compare)
	return append(out, ejected...)
}
