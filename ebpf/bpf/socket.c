// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// A socket that connects or sends to a VIP goes to a backend instead. The
// destination is rewritten before routing and netfilter see it; nothing else
// ever touches a TCP connection.

//go:build ignore

#include "remember.h"

#define LEFT_ALONE 2 // what special may return besides: PROCEED, and rewrite nothing

// special is what a service with flags needs beyond a random choice. It returns
// the backend in w->backend and w->serial, and PROCEED, or fails the call.
static __noinline int special(struct bpf_sock_addr *ctx, struct wanted *w)
{
	__u32 flags = w->descriptor >> 48;
	struct backend *b = 0;
	if ((flags & FLAG_EXCLUDE) && listed(ctx, EVERY))
		return LEFT_ALONE;
	if ((flags & FLAG_ALLOW) && !listed(ctx, w->service))
		return refuse(w, EVENT_DENIED);
	struct bpf_sock *sock = ctx->sk;
	struct peer *p = 0;
	if (!sock)
		flags &= ~FLAG_REMEMBER;
	if ((flags & FLAG_REMEMBER) && w->proto == PROTO_UDP) {
		struct peers *ps = bpf_sk_storage_get(&udp_peers, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);
		p = ps ? place_for(ps, w) : 0;
		// What a UDP socket was given it keeps while the service has it.
		if (p && to_vip(p, w) && p->service == w->service && live(p->backend, p->serial)) {
			w->backend = p->backend;
			w->serial = p->serial;
			return PROCEED;
		}
	} else if (flags & FLAG_REMEMBER) {
		p = bpf_sk_storage_get(&tcp_peer, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);
	}
	if (flags & FLAGS_AFFINITY) {
		if (!kept(ctx, w, flags))
			return refuse(w, EVENT_NO_BACKEND);
	} else {
		__u32 index = 0;
		b = fresh(w->descriptor, flags, &index);
		if (!b)
			return refuse(w, EVENT_NO_BACKEND);
		w->backend = index;
		w->serial = b->serial;
	}
	__u32 index = w->backend;
	b = bpf_map_lookup_elem(&backends, &index);
	if (!b)
		return refuse(w, EVENT_NO_BACKEND);
	__sync_fetch_and_add(&b->connections, 1);
	if (p)
		note(p, w, b);
	return PROCEED;
}

// choose finds a backend for w, whose service is known. It returns PROCEED with
// the backend in *to, or REFUSE.
static __always_inline int choose(struct bpf_sock_addr *ctx, struct wanted *w, struct backend **to)
{
	__u32 service = w->service, index = 0;
	__u64 *descriptor = bpf_map_lookup_elem(&descriptors, &service);
	if (!descriptor)
		return refuse(w, EVENT_NO_BACKEND);
	// volatile: the daemon may store another descriptor at any time, and base
	// and n must come from the same one.
	w->descriptor = *(volatile __u64 *)descriptor;
	if ((w->descriptor >> 48) & ~FLAG_ROW) {
		int verdict = special(ctx, w);
		index = w->backend;
		if (verdict == PROCEED)
			*to = bpf_map_lookup_elem(&backends, &index);
		return verdict == LEFT_ALONE ? PROCEED : verdict;
	}
	struct backend *b = at_random(w->descriptor, &index);
	if (!b)
		return refuse(w, EVENT_NO_BACKEND);
	__sync_fetch_and_add(&b->connections, 1);
	*to = b;
	return PROCEED;
}

// balance4 sends what goes to the address addr to a backend, which is *to, if
// the address is a VIP.
static __always_inline int balance4(struct bpf_sock_addr *ctx, __be32 addr, struct backend **to)
{
	struct vip4_key key = {.addr = addr, .port = ctx->user_port, .proto = ctx->protocol};
	__u32 *id = bpf_map_lookup_elem(&vip4, &key);
	if (!id)
		return PROCEED;
	struct wanted w = {
		.vip = {0, 0, MAPPED, addr}, .port = key.port, .proto = key.proto, .service = *id,
	};
	return choose(ctx, &w, to);
}

static __always_inline int rewrite4(struct bpf_sock_addr *ctx)
{
	struct backend *to = 0;
	int verdict = balance4(ctx, ctx->user_ip4, &to);
	if (to) {
		ctx->user_ip4 = to->addr[3];
		ctx->user_port = to->port;
	}
	return verdict;
}

// mapped4 is rewrite4 for an IPv6 socket that goes to ::ffff:a.b.c.d, as every
// JVM's does.
static __always_inline int mapped4(struct bpf_sock_addr *ctx)
{
	struct backend *to = 0;
	int verdict = balance4(ctx, ctx->user_ip6[3], &to);
	if (to) {
		ctx->user_ip6[3] = to->addr[3];
		ctx->user_port = to->port;
	}
	return verdict;
}

static __always_inline void get6(struct bpf_sock_addr *ctx, __be32 *addr)
{
	addr[0] = ctx->user_ip6[0];
	addr[1] = ctx->user_ip6[1];
	addr[2] = ctx->user_ip6[2];
	addr[3] = ctx->user_ip6[3];
}

static __always_inline void set6(struct bpf_sock_addr *ctx, const __be32 *addr, __be16 port)
{
	ctx->user_ip6[0] = addr[0];
	ctx->user_ip6[1] = addr[1];
	ctx->user_ip6[2] = addr[2];
	ctx->user_ip6[3] = addr[3];
	ctx->user_port = port;
}

static __always_inline int rewrite6(struct bpf_sock_addr *ctx)
{
	struct vip6_key key = {.port = ctx->user_port, .proto = ctx->protocol};
	get6(ctx, key.addr);
	if (!key.addr[0] && !key.addr[1] && key.addr[2] == MAPPED)
		return mapped4(ctx);

	__u32 *id = bpf_map_lookup_elem(&vip6, &key);
	if (!id)
		return PROCEED;
	struct backend *to = 0;
	struct wanted w = {.port = key.port, .proto = key.proto, .service = *id};
	copy_addr(w.vip, key.addr);
	int verdict = choose(ctx, &w, &to);
	if (to)
		set6(ctx, to->addr, to->port);
	return verdict;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return rewrite4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return rewrite6(ctx);
}

// The next two run for what a UDP socket that is not connected sends.

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return rewrite4(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return rewrite6(ctx);
}

// came_from returns the VIP that the socket took the address for when it sent.
static __always_inline struct peer *came_from(struct bpf_sock_addr *ctx, const __be32 *addr)
{
	struct bpf_sock *sock = ctx->sk;
	if (!sock)
		return 0;
	struct peers *ps = bpf_sk_storage_get(&udp_peers, sock, 0, 0);
	return ps ? at_backend(ps, addr, ctx->user_port) : 0;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	__be32 addr[4] = {0, 0, MAPPED, ctx->user_ip4};
	struct peer *p = came_from(ctx, addr);
	if (p) {
		ctx->user_ip4 = p->vip[3];
		ctx->user_port = p->vip_port;
	}
	return PROCEED;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	__be32 addr[4];
	get6(ctx, addr);
	struct peer *p = came_from(ctx, addr);
	if (p)
		set6(ctx, p->vip, p->vip_port);
	return PROCEED;
}

// connected_to returns the VIP that the socket connected to, if its peer still
// is the backend it was given: it may have connected elsewhere since.
static __always_inline struct peer *connected_to(struct bpf_sock_addr *ctx, const __be32 *addr)
{
	struct bpf_sock *sock = ctx->sk;
	if (!sock)
		return 0;
	if (ctx->protocol == PROTO_UDP)
		return came_from(ctx, addr);
	struct peer *p = bpf_sk_storage_get(&tcp_peer, sock, 0, 0);
	if (!p || !(p->flags & FLAG_PEERNAME) || p->backend_port != (__be16)ctx->user_port)
		return 0;
	return same_addr(p->backend_addr, addr) ? p : 0;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	__be32 addr[4] = {0, 0, MAPPED, ctx->user_ip4};
	struct peer *p = connected_to(ctx, addr);
	if (p) {
		ctx->user_ip4 = p->vip[3];
		ctx->user_port = p->vip_port;
	}
	return PROCEED;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	__be32 addr[4];
	get6(ctx, addr);
	struct peer *p = connected_to(ctx, addr);
	if (p)
		set6(ctx, p->vip, p->vip_port);
	return PROCEED;
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	if (ctx->protocol == PROTO_UDP) {
		struct peers *ps = bpf_sk_storage_get(&udp_peers, ctx, 0, 0);
		for (int i = 0; ps && i < PEERS; i++)
			release(&ps->peer[i]);
		return PROCEED;
	}
	struct peer *p = bpf_sk_storage_get(&tcp_peer, ctx, 0, 0);
	if (p)
		release(p);
	return PROCEED;
}

// failed counts a connect that came to nothing.
static __always_inline void failed(struct peer *p)
{
	__u32 service = p->service;
	struct backend *b = live(p->backend, p->serial);
	if (b)
		__sync_fetch_and_add(&b->failures, 1);
	struct counters *count = bpf_map_lookup_elem(&counts, &service);
	if (!count)
		return;
	count->failures++;
	struct event *e = due(count) ? bpf_ringbuf_reserve(&events, sizeof(*e), 0) : 0;
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	copy_addr(e->vip, p->vip);
	copy_addr(e->backend, p->backend_addr);
	e->vip_port = p->vip_port;
	e->backend_port = p->backend_port;
	e->proto = 6;
	e->service = service;
	e->kind = EVENT_FAILED;
	bpf_ringbuf_submit(e, 0);
}

// took averages the time a connect took over about the last eight.
static __always_inline void took(struct peer *p, __u64 ns)
{
	struct backend *b = live(p->backend, p->serial);
	if (!b)
		return;
	if (ns > 0xffffffff)
		ns = 0xffffffff;
	__u64 before = b->latency;
	b->latency = before ? (before * 7 + ns) / 8 : ns;
}

// watch is attached only where failed connects are wanted to be known.
SEC("sockops")
int watch(struct bpf_sock_ops *ctx)
{
	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_STATE_CB &&
	    ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return 1;
	struct bpf_sock *sock = ctx->sk;
	struct peer *p = sock ? bpf_sk_storage_get(&tcp_peer, sock, 0, 0) : 0;
	if (!p || !(p->flags & FLAG_WATCH))
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		p->started = bpf_ktime_get_ns();
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (p->started)
			took(p, bpf_ktime_get_ns() - p->started);
		p->started = 0;
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (p->started && ctx->args[0] == BPF_TCP_SYN_SENT && ctx->args[1] == BPF_TCP_CLOSE) {
			p->started = 0;
			failed(p);
		}
		break;
	}
	return 1;
}

char _license[] SEC("license") = "Dual MIT/GPL";
