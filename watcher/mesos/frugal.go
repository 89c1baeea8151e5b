package mesos

import "runtime/debug"

// frugalPercent is how much garbage there may be while a picture is read, in
// percent of what is alive. Reading makes four times as much garbage as it keeps
// in all, and by default the heap may double before the collector runs: a
// picture of 100 000 tasks, of which 55 MB stay, would need 88 MB for a moment.
// With an eighth it needs 61 MB, for two fifths more CPU time in that while
// (BenchmarkPicture). Beside a picture from before, twice as much is alive, and
// half the share is the same garbage.
const frugalPercent = 12

// frugally has the collector run more often until the function returned is
// called; again says that there is a picture already. It is for one picture at a
// time: the setting is the process's.
func frugally(again bool) (restore func()) {
	percent := frugalPercent
	if again {
		percent /= 2
	}
	before := debug.SetGCPercent(percent)
	if before < 0 || before < percent { // whoever set that, means it
		debug.SetGCPercent(before)
		return func() {}
	}
	return func() { debug.SetGCPercent(before) }
}
