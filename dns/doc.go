// Package dns names what runs and answers for it: Build makes a Zone of a
// Snapshot and a Table, and a Server answers queries from the Zone it is given.
// The names are those of mesos-dns and of DC/OS. The package knows neither
// schedulers nor kernels; what is not ours goes to a Forwarder.
package dns
