// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Which backend of a service a socket is sent to, and whether it may.
#pragma once

#include "backend.h"

// Not in linux headers for BPF targets.
#define EPERM 1
#define ECONNREFUSED 111

// What a program returns: go on with the call, or fail it.
#define PROCEED 1
#define REFUSE 0

#define SECOND 1000000000ULL
#define CGROUP_DEPTH 12 // how deep below the root an allowed cgroup may be

// Set by the daemon where this kernel lacks the helper.
const volatile __u8 no_ancestors;

// wanted is what a socket asks for, and what is found for it.
struct wanted {
	__be32 vip[4];
	__be16 port;
	__u8 proto;
	__u8 spare;
	__u32 service;
	__u64 descriptor;
	__u32 backend; // found
	__u32 serial;
};

// due reports whether the service may send an event now.
static __always_inline int due(struct counters *count)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	if (count->told && now - count->told < SECOND)
		return 0;
	count->told = now;
	return 1;
}

static __noinline int refuse(const struct wanted *w, int kind)
{
	__u32 service = w->service;
	struct counters *count = bpf_map_lookup_elem(&counts, &service);
	if (count) {
		if (kind == EVENT_DENIED)
			count->denied++;
		else
			count->refusals++;
		struct event *e = due(count) ? bpf_ringbuf_reserve(&events, sizeof(*e), 0) : 0;
		if (e) {
			__builtin_memset(e, 0, sizeof(*e));
			copy_addr(e->vip, w->vip);
			e->vip_port = w->port;
			e->proto = w->proto;
			e->service = service;
			e->kind = kind;
			e->cgroup = bpf_get_current_cgroup_id();
			bpf_ringbuf_submit(e, 0);
		}
	}
	bpf_set_retval(kind == EVENT_DENIED ? -EPERM : -ECONNREFUSED);
	return REFUSE;
}

// at_random returns one of the service's backends, each as likely as its weight.
static __always_inline struct backend *at_random(__u64 descriptor, __u32 *index)
{
	__u32 n = (descriptor >> 32) & 0xffff;
	// A multiplication spreads over n without the division of a modulo.
	__u32 at = (__u32)descriptor + (__u32)(((__u64)bpf_get_prandom_u32() * n) >> 32);
	if (!n)
		return 0;
	if (!((descriptor >> 48) & FLAG_ROW)) {
		__u32 pair = at / 2;
		struct slots *s = bpf_map_lookup_elem(&slots, &pair);
		if (!s)
			return 0;
		at = s->backend[at & 1];
	}
	*index = at;
	return bpf_map_lookup_elem(&backends, index);
}

// listed reports whether the calling process is a client in allow.
static __noinline int listed(struct bpf_sock_addr *ctx, __u32 service)
{
	struct allow_key key = {.service = service, .by = FLAG_NETNS};
	key.id = bpf_get_netns_cookie(ctx);
	if (bpf_map_lookup_elem(&allow, &key))
		return 1;
	key.by = FLAG_CGROUP;
	if (no_ancestors) {
		key.id = bpf_get_current_cgroup_id();
		return bpf_map_lookup_elem(&allow, &key) != 0;
	}
	for (int level = 0; level < CGROUP_DEPTH; level++) {
		key.id = bpf_get_current_ancestor_cgroup_id(level);
		if (!key.id)
			break;
		if (bpf_map_lookup_elem(&allow, &key))
			return 1;
	}
	return 0;
}

// whose says which client the socket belongs to. A socket that is not bound to
// an address is its network namespace's.
static __always_inline void whose(struct bpf_sock_addr *ctx, __u32 by, struct client_key *key)
{
	__u64 id = 0;
	struct bpf_sock *sock = ctx->sk;
	key->by = by;
	if (by == FLAG_SOURCE && sock) {
		if (sock->family == 2) {
			__be32 addr = sock->src_ip4;
			// Else clang makes one read of two places of it, which the
			// verifier does not take.
			asm volatile("" : "+r"(addr));
			key->client[3] = addr;
			key->client[2] = MAPPED;
		} else {
			key->client[0] = sock->src_ip6[0];
			key->client[1] = sock->src_ip6[1];
			key->client[2] = sock->src_ip6[2];
			key->client[3] = sock->src_ip6[3];
		}
		if (key->client[3])
			return;
		key->client[2] = 0;
	}
	if (by == FLAG_CGROUP) {
		id = bpf_get_current_cgroup_id();
	} else {
		id = bpf_get_netns_cookie(ctx);
		key->by = FLAG_NETNS;
	}
	key->client[0] = (__u32)id;
	key->client[1] = id >> 32;
}

// fresh chooses among the backends on the list.
static __always_inline struct backend *fresh(__u64 descriptor, __u32 flags, __u32 *index)
{
	struct backend *b = at_random(descriptor, index);
	if (!b || !(flags & FLAG_LEAST))
		return b;
	__u32 other = 0;
	struct backend *c = at_random(descriptor, &other);
	// Fewer sockets for its weight.
	if (!c || (__u64)c->active * b->weight >= (__u64)b->active * c->weight)
		return b;
	*index = other;
	return c;
}

// kept chooses the backend that the socket's client has had, or a fresh one.
static __noinline int kept(struct bpf_sock_addr *ctx, struct wanted *w, __u32 flags)
{
	struct client_key key = {.service = w->service};
	__u32 service = w->service, index = 0;
	struct service *s = bpf_map_lookup_elem(&services, &service);
	if (!s)
		return 0;
	whose(ctx, flags & FLAGS_AFFINITY, &key);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct client *had = bpf_map_lookup_elem(&clients, &key);
	struct client c = {.until = now + s->affinity_seconds * SECOND};
	if (had && had->until > now && live(had->backend, had->serial)) {
		c.backend = had->backend;
		c.serial = had->serial;
		had->until = c.until;
	} else {
		struct backend *b = fresh(w->descriptor, flags, &index);
		if (!b)
			return 0;
		c.backend = index;
		c.serial = b->serial;
		bpf_map_update_elem(&clients, &key, &c, BPF_ANY);
	}
	w->backend = c.backend;
	w->serial = c.serial;
	return 1;
}
