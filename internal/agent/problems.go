package agent

import (
	"slices"

	"waggle/model"
)

// Problems returns what was wrong in the input, or did not fit into the kernel,
// and cost only itself, in the order of the stages that found it.
func (s *State) Problems() []model.Problem {
	out := append(s.Snapshot.AllProblems(), s.Table.Problems()...)
	for _, e := range slices.Concat(s.Unsupported, s.Failed) {
		out = append(out, model.Problem{
			Field: "vip", Value: e.Frontend.Addr.String() + "/" + e.Frontend.Proto.String(), Error: e.Err.Error(),
		})
	}
	return out
}
