// Package devcluster is a whole cluster in one process, for trying and testing:
// Marathon app definitions go in, local processes come out, and what runs is
// told over the genuine Mesos operator API and Marathon's REST, so that a
// daemon watches it exactly as it would watch a real cluster. It knows nothing
// of the daemon, of VIPs or of DNS. Containers and images are emulated: every
// task is a local process in the host's network.
package devcluster
