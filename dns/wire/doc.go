// Package wire answers DNS queries straight from bytes: it takes the usual query
// apart, finds its name in an Index of records in wire format and puts the reply
// together without allocating. What is unusual it leaves to its caller. It knows
// neither where the records come from nor any DNS library.
package wire
