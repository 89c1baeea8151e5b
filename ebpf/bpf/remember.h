// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// What a socket remembers of the VIPs it went to. A TCP socket has room for
// one, a UDP socket for PEERS.
#pragma once

#include "choose.h"

// release takes the socket off its backend's count.
static __always_inline void release(struct peer *p)
{
	struct backend *b = p->flags & FLAG_COUNT ? live(p->backend, p->serial) : 0;
	if (b)
		__sync_fetch_and_add(&b->active, -1);
	p->flags = 0;
}

// note makes p what w found.
static __always_inline void note(struct peer *p, const struct wanted *w, struct backend *b)
{
	release(p);
	copy_addr(p->vip, w->vip);
	copy_addr(p->backend_addr, b->addr);
	p->vip_port = w->port;
	p->backend_port = b->port;
	p->service = w->service;
	p->backend = w->backend;
	p->serial = w->serial;
	p->flags = w->descriptor >> 48;
	p->started = 0;
	if (p->flags & FLAG_COUNT)
		__sync_fetch_and_add(&b->active, 1);
}

static __always_inline int to_vip(const struct peer *p, const struct wanted *w)
{
	return p->flags && p->vip_port == w->port && same_addr(p->vip, w->vip);
}

// place_for returns where ps keeps w's VIP: where it does already, in a free
// place, or in that of another.
static __always_inline struct peer *place_for(struct peers *ps, const struct wanted *w)
{
	struct peer *free = 0;
	for (int i = 0; i < PEERS; i++) {
		struct peer *p = &ps->peer[i];
		if (to_vip(p, w))
			return p;
		if (!p->flags && !free)
			free = p;
	}
	if (free)
		return free;
	ps->next++;
	return &ps->peer[ps->next % PEERS];
}

// at_backend returns what ps knows of the VIP behind a backend's address.
static __always_inline struct peer *at_backend(struct peers *ps, const __be32 *addr, __be16 port)
{
	for (int i = 0; i < PEERS; i++) {
		struct peer *p = &ps->peer[i];
		if (p->flags && p->backend_port == port && same_addr(p->backend_addr, addr))
			return p;
	}
	return 0;
}
