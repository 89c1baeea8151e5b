// Package mesos follows a Mesos master over its v1 operator API: it keeps the
// state that a SUBSCRIBE stream tells of and publishes Snapshots of it. It also
// reads recorded documents, the older /state among them. It knows no DNS, no
// VIPs and no kernel, and never forgets what runs because a master went away.
package mesos
