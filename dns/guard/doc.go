// Package guard decides who is answered: which networks may ask, how fast
// replies may go to one of them, how many connections one may hold, and whose
// address is proven by a cookie. It sees addresses, octets and clocks, and knows
// nothing of names, zones or sockets. What is called for each packet allocates
// nothing and takes no lock.
package guard
