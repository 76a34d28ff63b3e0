/*
 * base.h: the ground everything stands on: result codes, slices, buffers, arenas, UID sets, checksums, the log line.
 *
 * No I/O but the log line's write to stderr, no global but the log threshold. Everything here may be used on any
 * thread as long as one object is used by one thread at a time.
 */
#ifndef TAMBO_BASE_H
#define TAMBO_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Result codes: each one is a decision for the caller. Text comes from the same list (tb_rc_text).
 */
#define TB_RC_LIST(X) \
    X(OK, "ok") \
    X(NOTFOUND, "not found") \
    X(EXISTS, "already exists") \
    X(INVALID, "invalid") \
    X(LIMIT, "limit reached") \
    X(BUSY, "busy, try again") \
    X(CONFLICT, "changed meanwhile") \
    X(NOSPACE, "no space left") \
    X(IO, "input/output error") \
    X(CORRUPT, "data damaged") \
    X(CANCELLED, "cancelled") \
    X(OVERQUOTA, "over quota")

enum tb_rc {
#define X(name, text) TB_##name,
    TB_RC_LIST(X)
#undef X
};

#define TB_USE_RESULT __attribute__((warn_unused_result))
#define TB_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define TB_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define TB_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Detail for a person: what object, why, and the next step. Filled by whoever finds the error. */
struct tb_error {
    enum tb_rc rc;
    int sys; /* errno, or 0 */
    char text[232];
};

/* tb_rc_text: the words for a code; static storage. */
const char *tb_rc_text(enum tb_rc rc);

/*
 * tb_error_set: fill err (may be NULL) and return rc, so that "return tb_error_set(...)" reads well.
 *   sys  an errno whose text is appended to the message, or 0
 */
enum tb_rc tb_error_set(struct tb_error *err, enum tb_rc rc, int sys, const char *fmt, ...) TB_PRINTF(4, 5);

/* TB_ASSERT: for what only our own bug can break; stays on in release. Never on bytes from network or disk. */
#define TB_ASSERT(cond) ((cond) ? (void)0 : tb_assert_failed(__FILE__, __LINE__, #cond))
_Noreturn void tb_assert_failed(const char *file, int line, const char *cond);

/* ---- slices: borrowed bytes, no terminating NUL ---- */

struct tb_slice {
    const char *ptr;
    size_t len;
};

#define TB_SLICE(literal) ((struct tb_slice){"" literal, sizeof(literal) - 1})

static inline struct tb_slice tb_slice(const void *ptr, size_t len)
{
    return (struct tb_slice){ptr, len};
}
static inline struct tb_slice tb_slice_str(const char *s)
{
    return (struct tb_slice){s, strlen(s)};
}
static inline bool tb_slice_eq(struct tb_slice a, struct tb_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
/* tb_slice_sub: at most len bytes from offset; clamps to the slice, so the result may be empty. */
struct tb_slice tb_slice_sub(struct tb_slice s, size_t offset, size_t len);
/* tb_slice_ieq: equal but for ASCII case. */
bool tb_slice_ieq(struct tb_slice a, struct tb_slice b);
/* tb_slice_istarts: s begins with prefix but for ASCII case. */
bool tb_slice_istarts(struct tb_slice s, struct tb_slice prefix);
/* tb_slice_trim: without spaces, tabs, CR and LF at either end. */
struct tb_slice tb_slice_trim(struct tb_slice s);
/* tb_slice_u64: the whole slice is a decimal number <= max. No sign, no blanks, at least one digit. */
bool tb_slice_u64(struct tb_slice s, uint64_t max, uint64_t *out);

/* ---- arena: memory of one command; overflow is sticky and becomes TB_LIMIT ---- */

struct tb_arena_chunk;
struct tb_arena {
    struct tb_arena_chunk *chunks; /* owned */
    size_t used_bytes;             /* handed out since the last reset */
    size_t limit_bytes;
    bool overflowed;
};

/* tb_arena_init: an empty arena that hands out at most limit_bytes between resets. Allocates nothing yet. */
void tb_arena_init(struct tb_arena *a, size_t limit_bytes);
/*
 * tb_arena_alloc: size bytes aligned to 16, zeroed; NULL (and overflowed set) past the limit or without memory.
 * Freed by the next reset.
 */
void *tb_arena_alloc(struct tb_arena *a, size_t size);
/* tb_arena_copy: a copy of s in the arena, with a NUL behind it that len does not count; {NULL,0} on overflow. */
struct tb_slice tb_arena_copy(struct tb_arena *a, struct tb_slice s);
/* tb_arena_reset: forget everything; keeps at most one 4 KiB chunk for reuse, returns the rest to the heap. */
void tb_arena_reset(struct tb_arena *a);
/* tb_arena_free: as reset, keeping nothing; an idle connection's arena costs no heap. */
void tb_arena_free(struct tb_arena *a);

/* ---- buf: growing bytes with a limit; failure is sticky, so writers need no check after each put ---- */

struct tb_buf {
    char *ptr; /* owned */
    size_t len, cap, limit;
    bool failed; /* limit passed or out of memory: later puts do nothing */
};

/* tb_buf_init: empty; holds at most limit bytes. Allocates nothing yet. */
void tb_buf_init(struct tb_buf *b, size_t limit);
void tb_buf_free(struct tb_buf *b);
/* tb_buf_reserve: room for n more bytes; the pointer to write them at (then add n to len), or NULL when failed. */
char *tb_buf_reserve(struct tb_buf *b, size_t n);
void tb_buf_put(struct tb_buf *b, const void *ptr, size_t len);
void tb_buf_slice(struct tb_buf *b, struct tb_slice s);
void tb_buf_str(struct tb_buf *b, const char *s);
void tb_buf_char(struct tb_buf *b, char c);
void tb_buf_u64(struct tb_buf *b, uint64_t v); /* decimal */
/* tb_buf_consume: drop n bytes from the front (memmove). */
void tb_buf_consume(struct tb_buf *b, size_t n);
static inline struct tb_slice tb_buf_all(const struct tb_buf *b)
{
    return tb_slice(b->ptr, b->len);
}

/* ---- integers on disk and in keys ---- */

static inline void tb_put_be16(void *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}
static inline void tb_put_be32(void *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}
static inline void tb_put_be64(void *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}
static inline uint16_t tb_get_be16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}
static inline uint32_t tb_get_be32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline uint64_t tb_get_be64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}
static inline void tb_put_le16(void *p, uint16_t v)
{
    memcpy(p, &v, 2);
}
static inline void tb_put_le32(void *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static inline void tb_put_le64(void *p, uint64_t v)
{
    memcpy(p, &v, 8);
}
static inline uint16_t tb_get_le16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t tb_get_le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t tb_get_le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the _le helpers assume a little-endian machine");

/* tb_put_varint: LEB128, at most 10 bytes; returns the bytes written. */
size_t tb_put_varint(void *p, uint64_t v);
/* tb_get_varint: reads from the front of *s and advances it; false if cut short or longer than 64 bits. */
bool tb_get_varint(struct tb_slice *s, uint64_t *v);

/* tb_crc32c: CRC-32C (Castagnoli, RFC 3720 B.4 polynomial) of the bytes, continuing from crc (0 to begin). SSE4.2 where
 * there is. */
uint32_t tb_crc32c(uint32_t crc, const void *ptr, size_t len);

/* tb_siphash: SipHash-2-4 of the bytes under a 16-byte key: for hash tables whose keys strangers choose. */
uint64_t tb_siphash(const uint8_t key[16], const void *ptr, size_t len);
/* tb_mixhash: a keyed hash of many bytes, to find what may be equal (compare before believing it). seed: 0, or the
 * result for the bytes before. About 0.1 ns a byte. */
uint64_t tb_mixhash(const uint64_t key[4], uint64_t seed, const void *ptr, size_t len);

/* ---- uidset: ascending, disjoint, non-adjacent ranges of non-zero 32-bit numbers ---- */

struct tb_range {
    uint32_t first, last; /* inclusive */
};
struct tb_uidset {
    struct tb_range *v; /* owned, heap */
    size_t n, cap;
    bool failed; /* out of memory or over TB_UIDSET_RANGES_MAX: sticky */
};
#define TB_UIDSET_RANGES_MAX (4u << 20)

void tb_uidset_init(struct tb_uidset *s);
void tb_uidset_free(struct tb_uidset *s);
void tb_uidset_clear(struct tb_uidset *s);
/* tb_uidset_add: add first..last (0 < first <= last); merges with neighbours. O(1) at the end, O(ranges) elsewhere. */
void tb_uidset_add(struct tb_uidset *s, uint32_t first, uint32_t last);
/* tb_uidset_remove: take first..last out; may split a range. */
void tb_uidset_remove(struct tb_uidset *s, uint32_t first, uint32_t last);
bool tb_uidset_has(const struct tb_uidset *s, uint32_t uid);
/* tb_uidset_count: how many numbers. O(ranges). */
uint64_t tb_uidset_count(const struct tb_uidset *s);
/* tb_uidset_intersect: out = a and b. out is cleared first and is neither a nor b. */
void tb_uidset_intersect(const struct tb_uidset *a, const struct tb_uidset *b, struct tb_uidset *out);
/* tb_uidset_unite: out = a or b. tb_uidset_subtract: out = a without b. O(ranges); as tb_uidset_intersect. */
void tb_uidset_unite(const struct tb_uidset *a, const struct tb_uidset *b, struct tb_uidset *out);
void tb_uidset_subtract(const struct tb_uidset *a, const struct tb_uidset *b, struct tb_uidset *out);
/* tb_uidset_write: the set as RFC 9051 sequence-set text ("1:4,7"). */
void tb_uidset_write(const struct tb_uidset *s, struct tb_buf *out);

/* ---- histogram: latencies in ns, log-linear buckets, relative error under 1 % ---- */

#define TB_HISTOGRAM_BUCKETS 3712
struct tb_histogram {
    uint64_t count, sum, max;
    uint64_t bucket[TB_HISTOGRAM_BUCKETS];
};
/* tb_histogram_add: count one sample. */
void tb_histogram_add(struct tb_histogram *h, uint64_t value);
/* tb_histogram_merge: add all of from's samples to into. */
void tb_histogram_merge(struct tb_histogram *into, const struct tb_histogram *from);
/* tb_histogram_quantile: the value below which q (0..1) of the samples lie; 0 if empty. */
uint64_t tb_histogram_quantile(const struct tb_histogram *h, double q);

/* ---- the log line (logfmt to stderr); never message text, never secrets ---- */

enum tb_level { TB_LOG_ERROR, TB_LOG_WARN, TB_LOG_INFO, TB_LOG_DEBUG };
/* tb_log_level: lines above this level are not written. Once, before threads start, or at a reload. */
void tb_log_level(enum tb_level max);
/* tb_log: one line "level=info <text>", in one write(2). Control bytes in the text become '?'. Any thread. */
void tb_log(enum tb_level level, const char *fmt, ...) TB_PRINTF(2, 3);

#endif
