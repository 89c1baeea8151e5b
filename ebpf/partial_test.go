package ebpf

import "testing"

// TestAPartialPlanTakesNothingAway is a daemon that restarts knowing less than
// the kernel: what it does not know stays until it knows all.
func TestAPartialPlanTakesNothingAway(t *testing.T) {
	b := newBed(t)
	a, c := service("11.0.0.1:80", addr("127.0.0.1:81")), service("11.0.0.3:80", addr("127.0.0.1:83"))
	more := service("11.0.0.2:80", addr("127.0.0.1:82"), addr("127.0.0.1:84"))
	d := b.open(t)
	apply(t, d, a, service("11.0.0.2:80", addr("127.0.0.1:82")))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = b.open(t)
	part := plan(more, c)
	part.Partial = true
	for range 2 {
		if err := d.Apply(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		if err := d.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		sameState(t, wantState(plan(a, more, c)), kernelState(t, d))
	}
	part = plan(more) // what a partial Plan gives up itself may go
	part.Partial = true
	if err := d.Apply(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	sameState(t, wantState(plan(a, more)), kernelState(t, d))
	apply(t, d, more, c)
	sameState(t, wantState(plan(more, c)), kernelState(t, d))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
