/*
 * codec.h: zstd frames with versioned dictionaries. The only folder that includes <zstd.h> and <zdict.h>.
 *
 * A dictionary id is 16 bits: 0 none; 1..15 the built-in ones (role x version), compiled in and never changed once
 * released; 16 and up are the store's own, trained on its mail and taught to every tb_codec. A frame is stored with the
 * id that made it; bit 15 (TB_DICT_B64) says that base64 in it was decoded before. One tb_codec per thread; digested
 * built-in dictionaries are shared, read-only, made once (tb_codec_init before threads start).
 */
#ifndef TB_CODEC_H
#define TB_CODEC_H

#include <tambo/base.h>

enum tb_codec_role { TB_ROLE_HEADER, TB_ROLE_BODY, TB_ROLE_CACHE, TB_ROLES };
enum {
    TB_DICT_NONE = 0,
    TB_DICT_B64 = 0x8000, /* added to an id: base64 was decoded first (b64.h) */
    TB_DICT_RAW = 0xffff, /* stored as it is: zstd saved under 3 % */
    TB_DICT_HEADER_1 = 1,
    TB_DICT_BODY_1 = 2,
    TB_DICT_CACHE_1 = 3,
    TB_DICT_BUILTIN_MAX = 15,
    TB_DICT_TRAINED_MIN = 16,
    TB_DICT_TRAINED_MAX = 0x7ffe,
    TB_DICT_BYTES_MAX = 128 << 10
};

struct tb_codec;      /* opaque: one thread's contexts */
struct tb_codec_dict; /* opaque: a dictionary, shared by all threads, read only */

/* tb_codec_init: digest the built-in dictionaries; once per process, before the first tb_codec_new. LIMIT without
 * memory. */
enum tb_rc tb_codec_init(void) TB_USE_RESULT;
struct tb_codec *tb_codec_new(void); /* NULL without memory */
void tb_codec_free(struct tb_codec *c);

/*
 * tb_codec_dict_new: a dictionary of the store's own from its bytes, which are copied. CORRUPT: they are none, or the
 * id or role is out of range; LIMIT without memory. About 2 ms: not on an owner's thread while it serves.
 * tb_codec_dict_free: when no tb_codec that learned it is used any more.
 */
enum tb_rc tb_codec_dict_new(uint16_t id, enum tb_codec_role role, struct tb_slice bytes,
                             struct tb_codec_dict **out) TB_USE_RESULT;
void tb_codec_dict_free(struct tb_codec_dict *d);
uint16_t tb_codec_dict_id(const struct tb_codec_dict *d);
enum tb_codec_role tb_codec_dict_role(const struct tb_codec_dict *d);
struct tb_slice tb_codec_dict_bytes(const struct tb_codec_dict *d);

/*
 * tb_codec_learn: frames made with d can be read from now on. tb_codec_adopt: also, those of its role are made with it.
 * d is borrowed until tb_codec_free. LIMIT without memory, and nothing changed. tb_codec_in_use: the id that frames of
 * the role are made with.
 */
enum tb_rc tb_codec_learn(struct tb_codec *c, const struct tb_codec_dict *d) TB_USE_RESULT;
enum tb_rc tb_codec_adopt(struct tb_codec *c, const struct tb_codec_dict *d) TB_USE_RESULT;
bool tb_codec_knows(const struct tb_codec *c, uint16_t dict); /* could a frame with this id be read? */
uint16_t tb_codec_in_use(const struct tb_codec *c, enum tb_codec_role role);

struct tb_training {             /* what came of it */
    struct tb_codec_dict *dict;  /* the caller's */
    size_t samples, held_out;    /* it was trained from; it was tried on */
    uint64_t raw, before, after; /* bytes of those held out: as they are, with the dictionary in use, with this one */
};
/*
 * tb_codec_train: a dictionary from samples (in random order; a quarter is held out), and what it is worth.
 *   current  what to compare with: the one in use, or NULL: the built-in one
 * OK, whether it is any better or not; NOTFOUND: too few samples, or nothing repeats in them; LIMIT without memory.
 * Takes about a second: for a helper thread.
 */
enum tb_rc tb_codec_train(uint16_t id, enum tb_codec_role role, const struct tb_codec_dict *current,
                          const struct tb_slice *samples, size_t n, struct tb_training *out) TB_USE_RESULT;

/* tb_codec_bound: the most bytes tb_codec_compress can write for len input bytes. */
size_t tb_codec_bound(size_t len);
/*
 * tb_codec_compress: one independent frame of src with the newest dictionary of the role, level 1 at delivery (level 0:
 * the default); base64 in bodies is decoded first where there is enough of it. dst holds at least
 * tb_codec_bound(src.len). Returns the bytes written and *dict: the id used, or TB_DICT_RAW when the bytes were copied
 * as they are. Never fails. About 3 ns a byte.
 */
size_t tb_codec_compress(struct tb_codec *c, enum tb_codec_role role, int level, struct tb_slice src, void *dst,
                         uint16_t *dict);
/*
 * tb_codec_decompress: exactly raw_len bytes into dst, or CORRUPT (bad frame, other size); NOTFOUND: its dictionary is
 * not known here, so nothing can be said of the frame. Bounded by raw_len whatever the frame claims. LIMIT without
 * memory.
 */
enum tb_rc tb_codec_decompress(struct tb_codec *c, uint16_t dict, struct tb_slice frame, void *dst,
                               size_t raw_len) TB_USE_RESULT;

#endif
