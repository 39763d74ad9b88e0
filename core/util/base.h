/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Base: sizes, little-endian types, cleanup attributes, intrusive lists.
 *
 * Everything in core includes this first. No state, no functions that can fail.
 */
#ifndef TER_BASE_H
#define TER_BASE_H

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef ERESTART
#define ERESTART 85
#endif

#define TER_SECTOR_SHIFT 9
#define TER_SECTOR_BYTES 512u

#define TER_KIB(n) ((uint64_t)(n) << 10)
#define TER_MIB(n) ((uint64_t)(n) << 20)
#define TER_GIB(n) ((uint64_t)(n) << 30)

#define TER_NS_PER_MS 1000000ull
#define TER_NS_PER_S 1000000000ull

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
/* Each argument is evaluated once. The names carry a number, so that one may stand inside another. */
#define TER_CAT2_(a, b) a##b
#define TER_CAT_(a, b) TER_CAT2_(a, b)
#define TER_PICK_(a, op, b, n)                                                                                         \
	({                                                                                                             \
		__typeof__(a) TER_CAT_(a_, n) = (a);                                                                   \
		__typeof__(b) TER_CAT_(b_, n) = (b);                                                                   \
		TER_CAT_(a_, n) op TER_CAT_(b_, n) ? TER_CAT_(a_, n) : TER_CAT_(b_, n);                                \
	})
#define ter_min(a, b) TER_PICK_(a, <, b, __COUNTER__)
#define ter_max(a, b) TER_PICK_(a, >, b, __COUNTER__)
#define ter_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ter_likely(x) __builtin_expect(!!(x), 1)
#define ter_unlikely(x) __builtin_expect(!!(x), 0)
#define TER_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Cleanup: `_cleanup_(fn) T *p`, ownership given away with TAKE_PTR(). */
#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define TAKE_PTR(p) ({ __typeof__(p) _p = (p); (p) = NULL; _p; })
static inline void ter_freep(void *p)
{
	free(*(void **)p);
}
#define _cleanup_free_ _cleanup_(ter_freep)

static inline uint64_t ter_round_up(uint64_t x, uint64_t pow2)
{
	return (x + pow2 - 1) & ~(pow2 - 1);
}
static inline uint64_t ter_round_down(uint64_t x, uint64_t pow2)
{
	return x & ~(pow2 - 1);
}
static inline bool ter_is_pow2(uint64_t x)
{
	return x && !(x & (x - 1));
}
static inline unsigned ter_log2(uint64_t x)
{
	return 63 - (unsigned)__builtin_clzll(x);
}

/* Little-endian integers on disk: types of their own, so that none is added or compared unconverted. */
typedef struct { uint16_t raw; } __attribute__((packed)) ter_le16;
typedef struct { uint32_t raw; } __attribute__((packed)) ter_le32;
typedef struct { uint64_t raw; } __attribute__((packed)) ter_le64;

static inline uint16_t ter_le16_get(ter_le16 x) { return le16toh(x.raw); }
static inline uint32_t ter_le32_get(ter_le32 x) { return le32toh(x.raw); }
static inline uint64_t ter_le64_get(ter_le64 x) { return le64toh(x.raw); }
static inline ter_le16 ter_le16_make(uint16_t x) { return (ter_le16){ htole16(x) }; }
static inline ter_le32 ter_le32_make(uint32_t x) { return (ter_le32){ htole32(x) }; }
static inline ter_le64 ter_le64_make(uint64_t x) { return (ter_le64){ htole64(x) }; }

#define TER_DISK_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size on disk of " #type)
#define TER_DISK_OFFSET(type, field, at) _Static_assert(offsetof(type, field) == (at), "offset of " #field " in " #type)

/* Intrusive doubly linked list; a head is an element that links to itself when empty. */
struct ter_list {
	struct ter_list *next, *prev;
};
static inline void ter_list_init(struct ter_list *l)
{
	l->next = l->prev = l;
}
static inline bool ter_list_empty(const struct ter_list *l)
{
	return l->next == l;
}
static inline void ter_list_add_between_(struct ter_list *e, struct ter_list *prev, struct ter_list *next)
{
	e->prev = prev;
	e->next = next;
	prev->next = e;
	next->prev = e;
}
static inline void ter_list_add(struct ter_list *head, struct ter_list *e)
{
	ter_list_add_between_(e, head, head->next);
}
static inline void ter_list_add_tail(struct ter_list *head, struct ter_list *e)
{
	ter_list_add_between_(e, head->prev, head);
}
/* Also leaves @e as an empty head, so that a second removal is harmless. */
static inline void ter_list_del(struct ter_list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	ter_list_init(e);
}
#define ter_list_entry(ptr, type, member) ter_container_of(ptr, type, member)
#define ter_list_first(head, type, member) ter_list_entry((head)->next, type, member)
#define ter_list_for_each(pos, head, member)                                                                           \
	for (pos = ter_list_first(head, __typeof__(*pos), member); &pos->member != (head);                             \
	     pos = ter_list_first(&pos->member, __typeof__(*pos), member))
#define ter_list_for_each_safe(pos, tmp, head, member)                                                                 \
	for (pos = ter_list_first(head, __typeof__(*pos), member),                                                     \
	    tmp = ter_list_first(&pos->member, __typeof__(*pos), member);                                              \
	     &pos->member != (head); pos = tmp, tmp = ter_list_first(&pos->member, __typeof__(*pos), member))

#endif
