// Package forward answers DNS questions about names that are not ours: from a
// cache of wire answers, or by asking upstream servers, of which it remembers
// who answers and how fast. It reads and writes wire messages only, and knows
// nothing of the cluster, of our own zones or of the sockets clients ask on.
package forward
