package wire

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shown is what each name has, as text; names without records are left out.
func shown(x *Index) map[string]string {
	out := map[string]string{}
	for n := range x.All() {
		if text := recordsText(n); text != "" {
			out[Text(n.Name())] = text
		}
	}
	return out
}

func recordsText(n Node) (text string) {
	for r := range n.Records() {
		text += fmt.Sprintf("%d %x, ", r.Type, r.Data)
	}
	return text
}

// What Diff yields, laid over what was, is what is, and names nothing that has
// stayed: between neighbours, over many steps, and between strangers.
func TestDiffLeadsFromOneIndexToAnother(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	all := []*Index{NewIndex(testDomains())}
	for range 60 {
		e := all[len(all)-1].Edit()
		for range rng.IntN(60) {
			name := AppendName(nil, fmt.Sprintf("a%d.b%d.mesos.", rng.IntN(60), rng.IntN(3)))
			e.Add(name, typeA, []byte{1, 2, 3, byte(rng.IntN(3))}, int32(rng.IntN(4)-2))
		}
		next, _ := e.Index()
		all = append(all, next)
	}
	stranger := NewIndex(testDomains()).Edit()
	stranger.Add(AppendName(nil, "a1.b1.mesos."), typeA, []byte{1, 2, 3, 4}, 1)
	other, _ := stranger.Index()
	all = append(all, other)
	for i := range all {
		for _, j := range []int{max(0, i-1), rng.IntN(len(all)), len(all) - 1} {
			was, is := shown(all[j]), shown(all[i])
			got := maps.Clone(was)
			for n := range all[i].Diff(all[j]) {
				name, text := Text(n.Name()), recordsText(n)
				if got[name] == text {
					t.Errorf("%d to %d: %s has not changed", j, i, name)
				}
				if got[name] = text; text == "" {
					delete(got, name)
				}
			}
			if d := cmp.Diff(is, got); d != "" {
				t.Fatalf("%d to %d: %s", j, i, d)
			}
		}
	}
}
