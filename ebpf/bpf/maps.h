// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// What the programs and the daemon share: bpf2go makes Go types of the structs,
// so this is their only definition. A change of any of them needs a new
// `schema` in pins.go. Addresses and ports are in network order; an address of
// four words is IPv6, or IPv4 as ::ffff:a.b.c.d.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

// A scope other than 0 is for VIPs that only some of the node's tenants see.
struct vip4_key {
	__be32 addr;
	__be16 port;
	__u8 proto; // low 8 bits of the socket's protocol, so MPTCP is TCP
	__u8 scope;
};

struct vip6_key {
	__be32 addr[4];
	__be16 port;
	__u8 proto;
	__u8 scope;
};

// A descriptor says all that most connections must know of a service in one
// word, read by one load and written by one store:
//
//	bits  0..31  base, index of its first slot or, with FLAG_ROW, backend
//	bits 32..47  n, number of these; 0 refuses
//	bits 48..63  flags; with none but FLAG_ROW a connection is chosen for and forgotten
//
// The rest is apart from it, so that those that are read lie close together.
struct service {
	__u64 departed;         // connections to backends it no longer has; the daemon's
	__u32 affinity_seconds; // how long a client keeps its backend after its last connection
	__u32 spare;
};

#define FLAG_REMEMBER 1  // sockets remember where they went: UDP, and TCP with one of the next
                         // three or where a drain must know its sockets from another service's
#define FLAG_PEERNAME 2  // getpeername shows the VIP
#define FLAG_COUNT 4     // count open sockets
#define FLAG_WATCH 8     // note failed connects and how long others take
#define FLAG_LEAST 16    // of two backends at random, the one with fewer open sockets
#define FLAG_NETNS 32    // a client keeps its backend; clients are network namespaces,
#define FLAG_CGROUP 64   // cgroups,
#define FLAG_SOURCE 128  // or the addresses sockets are bound to
#define FLAG_ALLOW 256   // only for those in the map allow
#define FLAG_EXCLUDE 512 // but for those in the map allow with service EVERY, who are left alone
#define FLAG_ROW 32768   // its backends lie in a row, each as likely as any other

#define FLAGS_AFFINITY (FLAG_NETNS | FLAG_CGROUP | FLAG_SOURCE)

// A backend that is in no row has one slot for each share of its weight: its index.
// Two are an element of the map, which has eight octets at least.
struct slots {
	__u32 backend[2];
};

// A backend of one service, as long as a cache line, of which a connection reads
// one. The daemon writes the first five, the programs the rest.
struct backend {
	__be32 addr[4];
	__be16 port;
	__u16 weight;
	__u32 service;
	__u32 serial;      // another one as soon as the backend leaves the service's list
	__u32 active;      // open sockets, with FLAG_COUNT
	__u64 connections; // for UDP, sockets that were sent here
	__u32 failures;    // connects that failed, with FLAG_WATCH
	__u32 latency;     // of connects, in ns, averaged over about the last 8; with FLAG_WATCH
	__u64 spare[2];
};

// What a socket remembers of one VIP it went to.
struct peer {
	__be32 vip[4];
	__be32 backend_addr[4];
	__be16 vip_port;
	__be16 backend_port;
	__u32 service;
	__u32 backend;
	__u32 serial;
	__u32 flags; // of the service then; 0 for an entry that is not in use
	__u32 spare;
	__u64 started; // when it began to connect, by bpf_ktime_get_ns
};

#define PEERS 4

struct peers {
	struct peer peer[PEERS];
	__u32 next; // to be given up when a fifth VIP comes
	__u32 spare;
};

struct counters {
	__u64 refusals; // for lack of a backend
	__u64 denied;   // not allowed to connect
	__u64 failures; // connects that failed
	__u64 told;     // when an event was last sent, by the coarse clock
};

// Which client has which backend, while the backend's serial is this.
struct client_key {
	__u32 client[4]; // cookie, id or address
	__u32 service;
	__u32 by; // FLAG_NETNS and so on
};

struct client {
	__u64 until; // by the coarse clock
	__u32 backend;
	__u32 serial;
};

// The number of no service.
#define EVERY 0xffffffff

// Who may connect to a service with FLAG_ALLOW. Of EVERY, who is left alone.
struct allow_key {
	__u64 id; // cookie of a network namespace, or id of a cgroup
	__u32 service;
	__u32 by; // FLAG_NETNS or FLAG_CGROUP
};

enum event_kind {
	EVENT_NO_BACKEND = 1,
	EVENT_DENIED = 2,
	EVENT_FAILED = 3,
};

// Something rare, told at most once a second for each service and CPU.
struct event {
	__be32 vip[4];
	__be32 backend[4]; // of EVENT_FAILED
	__u64 cgroup;      // whose task it was
	__be16 vip_port;
	__be16 backend_port;
	__u32 service;
	__u8 kind;
	__u8 proto;
	__u8 spare[6];
};

const struct event *unused __attribute__((unused)); // or bpf2go would not see it

// The daemon sets max_entries, from its configuration or from what is pinned.
#define PINNED_MAP(map, kind, flags, k, v)                                                         \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(map_flags, flags);                                                          \
		__uint(max_entries, 1);                                                            \
		__type(key, k);                                                                    \
		__type(value, v);                                                                  \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} map SEC(".maps")

#define SOCKET_MAP(map, v)                                                                         \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_SK_STORAGE);                                             \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, int);                                                                  \
		__type(value, v);                                                                  \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} map SEC(".maps")

PINNED_MAP(vip4, BPF_MAP_TYPE_HASH, 0, struct vip4_key, __u32); // to a service
PINNED_MAP(vip6, BPF_MAP_TYPE_HASH, 0, struct vip6_key, __u32);
PINNED_MAP(descriptors, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, __u32, __u64); // by service
PINNED_MAP(services, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, __u32, struct service);
PINNED_MAP(slots, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, __u32, struct slots);
PINNED_MAP(backends, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, __u32, struct backend);
PINNED_MAP(counts, BPF_MAP_TYPE_PERCPU_ARRAY, 0, __u32, struct counters); // by service
PINNED_MAP(clients, BPF_MAP_TYPE_LRU_HASH, 0, struct client_key, struct client);
PINNED_MAP(allow, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, struct allow_key, __u8);
SOCKET_MAP(tcp_peer, struct peer);
SOCKET_MAP(udp_peers, struct peers);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");
