// Package zk follows an elected leader below a ZooKeeper path, as Mesos masters
// register there. It says who leads while it can see that, and nothing while it
// cannot: losing ZooKeeper is no news about a leader. It speaks to no master.
package zk
