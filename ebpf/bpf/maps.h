// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// What the programs and the daemon share: bpf2go makes Go types of the structs,
// so this is their only definition. A change of any of them needs a new
// `schema` in pins.go. Addresses and ports are in network order.
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

// The descriptor says all that a connection must know of a service in one word,
// read by one load and written by one store:
//
//	bits  0..31  base, index of its first slot
//	bits 32..47  n, number of its slots; 0 refuses
//	bits 48..63  flags
struct service {
	__u64 descriptor;
	__u64 spare[3]; // for the packet path: ring, affinity, generation
};

#define FLAG_PEERNAME 1 // getpeername shows the VIP

// A backend has one slot for each share of its weight.
struct dest4 {
	__be32 addr;
	__be16 port;
	__u16 spare;
};

struct dest6 {
	__be32 addr[4];
	__be16 port;
	__u16 spare[3];
};

// What a socket of a service with FLAG_PEERNAME remembers. IPv4 addresses are
// v4-mapped.
struct peer {
	__be32 vip[4];
	__be32 backend[4];
	__be16 vip_port;
	__be16 backend_port;
	__u32 service;
};

struct counters {
	__u64 connections; // sent to a backend
	__u64 refusals;    // refused for lack of one
};

// The daemon sets max_entries, from its configuration or from what is pinned.

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct vip4_key);
	__type(value, __u32); // service id
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} vip4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct vip6_key);
	__type(value, __u32); // service id
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} vip6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32); // service id
	__type(value, struct service);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} svc SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dest4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} slot4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dest6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} slot6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32); // service id
	__type(value, struct counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} st_svc SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sk SEC(".maps");
