// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Ends the sockets of services to backends that they no longer have. It runs
// over all TCP or all UDP sockets of one network namespace, that of the thread
// which opens the iterator, and holds the lock of the socket it looks at.
// bpf_sock_destroy came with Linux 6.5; socket.c does without.

//go:build ignore

#include "backend.h"

#include <linux/in6.h>

#define AF_INET 2
#define AF_INET6 10
#define STATE_ESTABLISHED 1
#define STATE_TIME_WAIT 6
#define STATE_CLOSE 7
#define STATE_LISTEN 10
#define STATE_NEW_SYN_RECV 12

// Of the kernel's structs what is read here, wherever this kernel has it.
#define KERNEL __attribute__((preserve_access_index))

struct sock_common {
	__be32 skc_daddr;
	__be16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
} KERNEL;

struct udp_sock;

struct bpf_iter__tcp {
	void *meta;
	struct sock_common *sk_common;
} KERNEL;

struct bpf_iter__udp {
	void *meta;
	struct udp_sock *udp_sk;
} KERNEL;

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

// A backend that a service is to have no sockets to. One without a VIP says
// that there are such, or nobody would look into the socket's memory.
struct doomed_key {
	__be32 vip[4];
	__be32 backend[4];
	__be16 vip_port;
	__be16 backend_port;
	__u32 proto;
};

#define DOOMED_REMEMBERED 1 // sockets that remember the VIP
#define DOOMED_ALL 2        // and those that remember none

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); // the daemon's
	__type(key, struct doomed_key);
	__type(value, __u32);
} doomed SEC(".maps");

__u64 ended; // sockets, so far

// far_end reads where the socket is connected to.
static __always_inline int far_end(struct sock_common *sk, struct doomed_key *key)
{
	if (sk->skc_family == AF_INET) {
		key->backend[2] = MAPPED;
		key->backend[3] = sk->skc_daddr;
	} else if (sk->skc_family == AF_INET6) {
		for (int i = 0; i < 4; i++)
			key->backend[i] = sk->skc_v6_daddr.in6_u.u6_addr32[i];
	} else {
		return 0;
	}
	key->backend_port = sk->skc_dport;
	return 1;
}

// judge looks at one memory of a socket with that far end: it sets *kill where
// it is of a doomed pair, and *keep where it is of a pair that goes on.
static __always_inline void judge(struct peer *p, const struct doomed_key *end, int *kill, int *keep)
{
	if (!p->flags || p->backend_port != end->backend_port || !same_addr(p->backend_addr, end->backend))
		return;
	struct doomed_key key = *end;
	copy_addr(key.vip, p->vip);
	key.vip_port = p->vip_port;
	if (bpf_map_lookup_elem(&doomed, &key))
		*kill = 1;
	else if (live(p->backend, p->serial))
		*keep = 1;
}

static __always_inline void destroy(struct sock_common *sk)
{
	if (bpf_sock_destroy(sk) == 0)
		__sync_fetch_and_add(&ended, 1);
}

SEC("iter/tcp")
int kill_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	if (!sk || sk->skc_state == STATE_LISTEN || sk->skc_state == STATE_CLOSE ||
	    sk->skc_state == STATE_TIME_WAIT || sk->skc_state == STATE_NEW_SYN_RECV)
		return 0;
	struct doomed_key end = {.proto = PROTO_TCP};
	__u32 *whom = far_end(sk, &end) ? bpf_map_lookup_elem(&doomed, &end) : 0;
	if (!whom)
		return 0;
	int kill = 0, keep = 0;
	struct peer *p = bpf_sk_storage_get(&tcp_peer, sk, 0, 0);
	if (p)
		judge(p, &end, &kill, &keep);
	if (!keep && (kill || *whom == DOOMED_ALL))
		destroy(sk);
	return 0;
}

// A UDP socket that is not connected chooses anew when it next sends.
SEC("iter/udp")
int kill_udp(struct bpf_iter__udp *ctx)
{
	struct sock_common *sk = (struct sock_common *)ctx->udp_sk;
	if (!sk || sk->skc_state != STATE_ESTABLISHED)
		return 0;
	struct doomed_key end = {.proto = PROTO_UDP};
	__u32 *whom = far_end(sk, &end) ? bpf_map_lookup_elem(&doomed, &end) : 0;
	if (!whom)
		return 0;
	int kill = 0, keep = 0;
	struct peers *ps = bpf_sk_storage_get(&udp_peers, sk, 0, 0);
	for (int i = 0; ps && i < PEERS; i++)
		judge(&ps->peer[i], &end, &kill, &keep);
	if (!keep && (kill || *whom == DOOMED_ALL))
		destroy(sk);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
