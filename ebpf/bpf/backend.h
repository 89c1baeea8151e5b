// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// How a backend that was noted is known again.
#pragma once

#include "maps.h"

#include <bpf/bpf_endian.h>

#define PROTO_TCP 6
#define PROTO_UDP 17

#define MAPPED bpf_htonl(0xffff) // third word of a v4-mapped address

static __always_inline int same_addr(const __be32 *a, const __be32 *b)
{
	return a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0];
}

static __always_inline void copy_addr(__be32 *to, const __be32 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

// live returns the backend if it still is what it was when serial was noted.
static __always_inline struct backend *live(__u32 index, __u32 serial)
{
	struct backend *b = bpf_map_lookup_elem(&backends, &index);
	return b && *(volatile __u32 *)&b->serial == serial ? b : 0;
}
