// Package ipvs is a Dataplane on IPVS, for kernels that cannot balance by eBPF.
// It keeps the services of a Plan in the machine's network namespace and in
// those of containers that ask for it, and leaves alone what others have put
// there. It knows nothing of clusters and names.
package ipvs
