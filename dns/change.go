package dns

import (
	"iter"

	"waggle/dns/wire"
)

// Same reports whether z answers all questions as old does, which is nil or one
// that z was built from, however many steps ago.
func (z *Zone) Same(old *Zone) bool { return old != nil && z.serial == old.serial }

// Changed yields every name whose records are not those of old, with the
// records it has now, which may be none, in no particular order. A nil old is
// the Zone of nothing. Of Zones that were built one from the other it looks only
// at what they do not share.
func (z *Zone) Changed(old *Zone) iter.Seq2[string, []Record] {
	before := wire.NewIndex(nil)
	if old != nil {
		before = old.index
	}
	return func(yield func(string, []Record) bool) {
		for w := range z.index.Diff(before) {
			name := wire.Text(w.Name())
			if !yield(name, nodeOf(w, nil).recordsOf(name, z.layout.domainOf(name).ttl)) {
				return
			}
		}
	}
}
