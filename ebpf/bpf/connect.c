// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// connect(2) to a VIP goes to a backend instead. The socket's destination is
// rewritten before routing and netfilter see it; nothing else ever touches the
// connection.

//go:build ignore

#include "maps.h"

#include <bpf/bpf_endian.h>

// Not in linux/socket.h or linux/errno.h for BPF targets.
#define ECONNREFUSED 111

// What a program returns: go on with the call, or fail it.
#define PROCEED 1
#define REFUSE 0

#define MAPPED bpf_htonl(0xffff) // third word of a v4-mapped address

static __always_inline int refuse(struct counters *count)
{
	if (count)
		count->refusals++;
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

// pick chooses one of the service's slots at random. It returns the service's
// descriptor, or 0 if the service has no slots.
static __always_inline __u64 pick(__u32 id, __u32 *slot)
{
	struct service *s = bpf_map_lookup_elem(&svc, &id);
	if (!s)
		return 0;
	// volatile: the daemon may store another descriptor at any time, and base
	// and n must come from the same one.
	__u64 descriptor = *(volatile __u64 *)&s->descriptor;
	__u32 n = (descriptor >> 32) & 0xffff;
	if (!n)
		return 0;
	// A multiplication spreads over n without the division of a modulo.
	*slot = (__u32)descriptor + (__u32)(((__u64)bpf_get_prandom_u32() * n) >> 32);
	return descriptor;
}

static __always_inline int wants_peername(__u64 descriptor)
{
	return (descriptor >> 48) & FLAG_PEERNAME;
}

// remember notes for getpeername where the socket's caller meant to go. Where
// there is no memory for it, getpeername shows the backend.
static __always_inline void remember(struct bpf_sock_addr *ctx, const struct peer *p)
{
	struct bpf_sock *sock = ctx->sk;
	if (!sock)
		return;
	struct peer *own = bpf_sk_storage_get(&sk, sock, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (own)
		*own = *p;
}

// choose4 returns PROCEED with *to as the backend for a VIP, PROCEED with a
// null *to for any other address, and REFUSE for a VIP without backends.
static __always_inline int choose4(struct bpf_sock_addr *ctx, __be32 addr, struct dest4 **to)
{
	struct vip4_key key = {.addr = addr, .port = ctx->user_port, .proto = ctx->protocol};
	*to = 0;
	__u32 *id = bpf_map_lookup_elem(&vip4, &key);
	if (!id)
		return PROCEED;
	__u32 service = *id, slot = 0;
	struct counters *count = bpf_map_lookup_elem(&st_svc, &service);
	__u64 descriptor = pick(service, &slot);
	struct dest4 *s = descriptor ? bpf_map_lookup_elem(&slot4, &slot) : 0;
	if (!s)
		return refuse(count);
	if (wants_peername(descriptor)) {
		struct peer p = {
			.vip = {0, 0, MAPPED, addr}, .vip_port = key.port,
			.backend = {0, 0, MAPPED, s->addr}, .backend_port = s->port,
			.service = service,
		};
		remember(ctx, &p);
	}
	if (count)
		count->connections++;
	*to = s;
	return PROCEED;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct dest4 *to;
	int verdict = choose4(ctx, ctx->user_ip4, &to);
	if (to) {
		ctx->user_ip4 = to->addr;
		ctx->user_port = to->port;
	}
	return verdict;
}

// connect6_mapped is connect4 for an IPv6 socket that connects to ::ffff:a.b.c.d,
// as every JVM's does.
static __always_inline int connect6_mapped(struct bpf_sock_addr *ctx)
{
	struct dest4 *to;
	int verdict = choose4(ctx, ctx->user_ip6[3], &to);
	if (to) {
		ctx->user_ip6[3] = to->addr;
		ctx->user_port = to->port;
	}
	return verdict;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct vip6_key key = {.port = ctx->user_port, .proto = ctx->protocol};
	key.addr[0] = ctx->user_ip6[0];
	key.addr[1] = ctx->user_ip6[1];
	key.addr[2] = ctx->user_ip6[2];
	key.addr[3] = ctx->user_ip6[3];
	if (!key.addr[0] && !key.addr[1] && key.addr[2] == MAPPED)
		return connect6_mapped(ctx);

	__u32 *id = bpf_map_lookup_elem(&vip6, &key);
	if (!id)
		return PROCEED;
	__u32 service = *id, slot = 0;
	struct counters *count = bpf_map_lookup_elem(&st_svc, &service);
	__u64 descriptor = pick(service, &slot);
	struct dest6 *to = descriptor ? bpf_map_lookup_elem(&slot6, &slot) : 0;
	if (!to)
		return refuse(count);
	if (wants_peername(descriptor)) {
		struct peer p = {.vip_port = key.port, .backend_port = to->port, .service = service};
		__builtin_memcpy(p.vip, key.addr, sizeof(p.vip));
		__builtin_memcpy(p.backend, to->addr, sizeof(p.backend));
		remember(ctx, &p);
	}
	if (count)
		count->connections++;
	ctx->user_ip6[0] = to->addr[0];
	ctx->user_ip6[1] = to->addr[1];
	ctx->user_ip6[2] = to->addr[2];
	ctx->user_ip6[3] = to->addr[3];
	ctx->user_port = to->port;
	return PROCEED;
}

// recall returns what remember noted if the socket's peer still is the backend
// it was noted for: the same socket may have connected elsewhere since.
static __always_inline struct peer *recall(struct bpf_sock_addr *ctx, const __be32 *addr)
{
	struct bpf_sock *sock = ctx->sk;
	if (!sock)
		return 0;
	struct peer *p = bpf_sk_storage_get(&sk, sock, 0, 0);
	if (!p || p->backend_port != (__be16)ctx->user_port)
		return 0;
	if (p->backend[0] != addr[0] || p->backend[1] != addr[1] ||
	    p->backend[2] != addr[2] || p->backend[3] != addr[3])
		return 0;
	return p;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	__be32 addr[4] = {0, 0, MAPPED, ctx->user_ip4};
	struct peer *p = recall(ctx, addr);
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
	addr[0] = ctx->user_ip6[0];
	addr[1] = ctx->user_ip6[1];
	addr[2] = ctx->user_ip6[2];
	addr[3] = ctx->user_ip6[3];
	struct peer *p = recall(ctx, addr);
	if (p) {
		ctx->user_ip6[0] = p->vip[0];
		ctx->user_ip6[1] = p->vip[1];
		ctx->user_ip6[2] = p->vip[2];
		ctx->user_ip6[3] = p->vip[3];
		ctx->user_port = p->vip_port;
	}
	return PROCEED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
