// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// A query of a process of this machine that has just been answered is answered
// again here, before it has woken anybody: on its way in through lo it is made
// its own answer, and goes on to the socket it came from.

//go:build ignore

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NEXT -1 // TCX_NEXT: others may look at it too
#define DROP 2  // TCX_DROP

#define DNS_HEADER 12
#define OPT 11 // octets of an OPT record without options
#define MOST_QUESTION 96
#define MOST_ANSWER 448
#define MOST_TURNS 224 // half of it, so that any part that starts there is in it
#define MOST_TTLS 8

// All of a query but its id, the letter case of its name, and what is the same
// in every usual one. Whatever equals one that the daemon has parsed needs no
// parsing: a name of the same octets in the same place is the same name.
struct question {
	__u8 flags[2];
	__u8 opt; // records behind the question
	__u8 size;
	__u32 spare;
	__u8 text[MOST_QUESTION]; // what follows the header, the name in lower case
};

// Who asks whom. Only those that the daemon would answer without another look
// are in the map.
struct path {
	__u8 client[16]; // IPv4 as ::ffff:a.b.c.d
	__u8 server[16];
	__u8 port[2];
	__u16 spare;
};

struct answer {
	__u64 serial; // no two answers have the same
	__u64 since;  // CLOCK_MONOTONIC, in ns, when the TTLs were as below
	__u64 until;
	__u32 generation;
	__u32 counter;
	__u8 header[10]; // that of the reply, from its flags on
	__u16 size;      // octets of text
	__u16 turns;     // of how many records at the start of text any may come first,
	__u16 each;      // and how long they are
	__u32 ttls;      // that go down
	__u16 ttl_at[MOST_TTLS]; // in text
	__u32 ttl[MOST_TTLS];
	__u8 text[MOST_ANSWER]; // what follows the question
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct question);
	__type(value, struct answer);
} answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct path);
	__type(value, __u32);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

// The daemon writes these two. What is of another generation is forgotten, but for
// what is of none, and all is once the daemon has not been heard of for long.
volatile __u64 alive_until;
volatile __u32 generation;

// settled returns n so that the compiler checks, and the verifier sees checked, the
// very register that is used.
static __always_inline __u64 settled(__u32 n)
{
	__u64 out = n;
	barrier_var(out);
	return out;
}

// path4 returns where the message of a UDP packet starts, 0 for another packet.
static __always_inline __u32 path4(struct __sk_buff *skb, struct path *p)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > (void *)(long)skb->data_end || ip->ihl != 5 || ip->protocol != IPPROTO_UDP ||
	    (ip->frag_off & bpf_htons(0x3fff)))
		return 0;
	p->client[10] = p->client[11] = p->server[10] = p->server[11] = 0xff;
	__builtin_memcpy(p->client + 12, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(p->server + 12, &ip->daddr, sizeof(ip->daddr));
	__builtin_memcpy(p->port, &udp->dest, sizeof(p->port));
	__u32 at = ETH_HLEN + sizeof(*ip) + sizeof(*udp);
	return skb->len == ETH_HLEN + sizeof(*ip) + bpf_ntohs(udp->len) ? at : 0;
}

static __always_inline __u32 path6(struct __sk_buff *skb, struct path *p)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > (void *)(long)skb->data_end || ip->nexthdr != IPPROTO_UDP)
		return 0;
	__builtin_memcpy(p->client, &ip->saddr, sizeof(p->client));
	__builtin_memcpy(p->server, &ip->daddr, sizeof(p->server));
	__builtin_memcpy(p->port, &udp->dest, sizeof(p->port));
	__u32 at = ETH_HLEN + sizeof(*ip) + sizeof(*udp);
	return skb->len == ETH_HLEN + sizeof(*ip) + bpf_ntohs(udp->len) ? at : 0;
}

// fold makes the first n octets of a question's text lower case, eight at a time.
// Octets above 127 are not letters (RFC 4343).
static __always_inline void fold(struct question *q, __u32 n)
{
	const __u64 each = 0x0101010101010101;
	for (__u32 i = 0; i < MOST_QUESTION / 8; i++) {
		if (8 * i >= n)
			break;
		__u64 *eight = (__u64 *)q->text + i, x = *eight;
		__u64 low = x & (0x7f * each);
		__u64 upper = ((low + (0x80 - 'A') * each) ^ (low + (0x7f - 'Z') * each)) & ~x & (0x80 * each);
		if (n - 8 * i < 8)
			upper &= (1ULL << 8 * (n - 8 * i)) - 1;
		*eight = x | upper >> 2;
	}
}

// usual takes the header of the message at at apart, and reports whether it can be
// that of a usual query.
static __always_inline int usual(struct __sk_buff *skb, __u32 at, struct question *q)
{
	__u8 header[DNS_HEADER];
	if (skb->gso_segs > 1 || bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return 0;
	if ((header[2] & 0xf8) || header[4] || header[5] != 1 || header[6] || header[7] || header[8] || header[9] ||
	    header[10] || header[11] > 1)
		return 0;
	q->flags[0] = header[2];
	q->flags[1] = header[3];
	q->opt = header[11];
	return 1;
}

// read takes the rest, which starts at at, and returns how long the question is;
// 0 if it is not a usual one.
static __always_inline __u32 read(struct __sk_buff *skb, __u32 at, struct question *q)
{
	__u64 n = settled(skb->len - at), behind = settled(q->opt ? OPT : 0);
	if (n < 5 + behind || n > MOST_QUESTION || bpf_skb_load_bytes(skb, at, q->text, n))
		return 0;
	q->size = n;
	fold(q, n - behind - 4);
	return n - behind;
}

struct nf_conn {
	unsigned long status;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned long _nfct;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *) __ksym __weak;

// translated reports whether netfilter has changed the addresses of the packet's
// connection: only what comes back from a socket is translated back.
static __always_inline int translated(struct __sk_buff *skb)
{
	const unsigned long source_or_destination = 3 << 4; // IPS_NAT_MASK
	unsigned long status = 0;
	if (!bpf_core_field_exists(((struct sk_buff *)0)->_nfct) || !bpf_core_field_exists(((struct nf_conn *)0)->status) ||
	    !bpf_cast_to_kern_ctx)
		return 0;
	struct sk_buff *real = bpf_cast_to_kern_ctx(skb);
	unsigned long of = real->_nfct & ~7UL; // the rest says how they belong together
	if (!of)
		return 0;
	bpf_probe_read_kernel(&status, sizeof(status), (void *)of + bpf_core_field_offset(struct nf_conn, status));
	return (status & source_or_destination) != 0;
}

// turn4 sends an IPv4 packet back to where it came from, as size octets of UDP.
static __always_inline int turn4(struct __sk_buff *skb, __u32 size)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return 0;
	__be32 client = ip->saddr;
	__be16 port = udp->source, length = bpf_htons(sizeof(*ip) + size);
	__u32 sum = (__u16)~ip->check + (__u16)~ip->tot_len + length; // RFC 1624
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~(__u16)(sum + (sum >> 16));
	ip->tot_len = length;
	ip->saddr = ip->daddr;
	ip->daddr = client;
	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(size);
	udp->check = 0; // none, RFC 768
	return 1;
}

// turn6 leaves the checksum, which must not be 0, as it is: what comes through
// lo has never had one, and nobody looks.
static __always_inline int turn6(struct __sk_buff *skb, __u32 size)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return 0;
	struct in6_addr client = ip->saddr;
	__be16 port = udp->source;
	ip->payload_len = bpf_htons(size);
	ip->saddr = ip->daddr;
	ip->daddr = client;
	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(size);
	return 1;
}

// put writes n octets of an answer's text, from where a first record may be.
static __always_inline long put(struct __sk_buff *skb, __u32 at, struct answer *a, __u32 start, __u32 size)
{
	// Less one, since verifiers before Linux 6.8 learn nothing of n != 0.
	__u64 from = settled(start), n = settled(size - 1);
	if (from > MOST_TURNS || n >= MOST_TURNS)
		return -1;
	return bpf_skb_store_bytes(skb, at, a->text + from, n + 1, 0);
}

// fill writes what follows the question, which ends at at.
static __always_inline long fill(struct __sk_buff *skb, __u32 at, struct answer *a)
{
	__u64 size = settled(a->size - 1);
	__u32 first = 0, all = a->turns * a->each;
	if (size >= MOST_ANSWER || bpf_skb_store_bytes(skb, at, a->text, size + 1, 0))
		return -1;
	if (a->turns > 1)
		first = bpf_get_prandom_u32() % a->turns * a->each;
	if (first && (put(skb, at, a, first, all - first) || put(skb, at + all - first, a, 0, first)))
		return -1;
	__u32 age = (bpf_ktime_get_ns() - a->since) / 1000000000;
	for (__u32 i = 0; i < MOST_TTLS; i++) {
		if (i >= a->ttls)
			break;
		__be32 ttl = bpf_htonl(a->ttl[i] > age ? a->ttl[i] - age : 0);
		if (bpf_skb_store_bytes(skb, at + a->ttl_at[i], &ttl, sizeof(ttl), 0))
			return -1;
	}
	return 0;
}

static __always_inline int forgotten(__u32 of, __u32 now) { return of && of != now; }

SEC("tcx/ingress")
int answer_query(struct __sk_buff *skb)
{
	struct path p = {};
	struct question q = {};
	__u32 at = 0, size = sizeof(struct udphdr) + DNS_HEADER;
	int v4 = skb->protocol == bpf_htons(ETH_P_IP);
	if (v4)
		at = path4(skb, &p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		at = path6(skb, &p);
	if (!at || !usual(skb, at, &q))
		return NEXT;
	__u32 *known = bpf_map_lookup_elem(&paths, &p), now = generation;
	if (!known || forgotten(*known, now) || bpf_ktime_get_ns() > alive_until)
		return NEXT;
	__u32 asked = read(skb, at + DNS_HEADER, &q);
	struct answer *a = asked ? bpf_map_lookup_elem(&answers, &q) : 0;
	if (!a || forgotten(a->generation, now) || bpf_ktime_get_ns() > a->until || translated(skb))
		return NEXT;
	__u64 serial = *(volatile __u64 *)&a->serial;
	__u32 counter = a->counter;
	size += asked + a->size;
	if (!(v4 ? turn4(skb, size) : turn6(skb, size)))
		return NEXT;
	// From here on it is no query any more: what goes wrong is a lost packet.
	if (bpf_skb_store_bytes(skb, at + 2, a->header, sizeof(a->header), 0) ||
	    bpf_skb_change_tail(skb, at - sizeof(struct udphdr) + size, 0) ||
	    fill(skb, at + DNS_HEADER + asked, a))
		return DROP;
	// An element of the map may be given to another question at any time.
	barrier();
	if (*(volatile __u64 *)&a->serial != serial)
		return DROP;
	__u64 *n = bpf_map_lookup_elem(&counts, &counter);
	if (n)
		(*n)++;
	return NEXT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
