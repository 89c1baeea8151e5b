package dns

import (
	"hash/fnv"
	"strconv"

	"waggle/model"
)

// maxInstances is how many instances of an app have a number.
const maxInstances = 128

// instances returns the running tasks among tasks by their number. A number goes
// to the task that its hash puts first of those that no lower number has: so it
// depends on nothing but which tasks run, and of n tasks about the logarithm of
// n get another number when one comes or goes.
// The rule is explained in docs/decisions/0023-numbers-of-instances.md.
func instances(tasks []*model.Task) []*model.Task {
	type candidate struct {
		task *model.Task
		hash uint64
	}
	left := make([]candidate, 0, len(tasks))
	for _, t := range tasks {
		if t.State == model.Running {
			h := fnv.New64a()
			h.Write([]byte(t.Key.ID))
			left = append(left, candidate{t, h.Sum64()})
		}
	}
	out := make([]*model.Task, 0, min(len(left), maxInstances))
	for n := uint64(0); len(left) > 0 && n < maxInstances; n++ {
		best, least := 0, mix(left[0].hash, n)
		for i := 1; i < len(left); i++ {
			h := mix(left[i].hash, n)
			if h < least || h == least && left[i].task.Key.ID < left[best].task.Key.ID {
				best, least = i, h
			}
		}
		out = append(out, left[best].task)
		left[best] = left[len(left)-1]
		left = left[:len(left)-1]
	}
	return out
}

func instancesOf(a *model.App) []*model.Task {
	if a == nil {
		return nil
	}
	return instances(a.Tasks)
}

// mix hashes a task's hash and a number: the last step of SplitMix64.
func mix(hash, number uint64) uint64 {
	x := hash + number*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// instanceOf names t, which may be nil, by its number.
func (l *layout) instanceOf(app appNames, number int, t *model.Task, add addFunc) {
	if t == nil {
		return
	}
	add = l.guarded(add)
	p := placeOf(t)
	name := "." + strconv.Itoa(number) + "." + app.folded + app.instance
	addAddrs(add, name[1:], l.addrs(t, p)...)
	for port := range l.ports(app, canonical(app.folded, t.Key.ID, t.AgentID), t, p) {
		if port.name != "" {
			add(port.name+port.proto[1:]+name, port.at)
		}
	}
}
