/*
 * codec.h: zstd frames with versioned dictionaries. The only folder that includes <zstd.h>.
 *
 * A dictionary id is 16 bits: 0 none; 1..15 the built-in ones (role x version), compiled in and never changed once
 * released; 16 and up are the store's own, trained later and registered at open. A frame is stored with the id that
 * made it; bit 15 (TB_DICT_B64) says that base64 in it was decoded before. One tb_codec per thread; digested built-in
 * dictionaries are shared, read-only, made once (tb_codec_init before threads start).
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
    TB_DICT_BUILTIN_MAX = 15
};

struct tb_codec; /* opaque: one thread's contexts */

/* tb_codec_init: digest the built-in dictionaries; once per process, before the first tb_codec_new. LIMIT without
 * memory. */
enum tb_rc tb_codec_init(void) TB_USE_RESULT;
struct tb_codec *tb_codec_new(void); /* NULL without memory */
void tb_codec_free(struct tb_codec *c);

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
 * tb_codec_decompress: exactly raw_len bytes into dst, or CORRUPT (bad frame, other size, unknown dictionary). Bounded
 * by raw_len whatever the frame claims. LIMIT without memory.
 */
enum tb_rc tb_codec_decompress(struct tb_codec *c, uint16_t dict, struct tb_slice frame, void *dst,
                               size_t raw_len) TB_USE_RESULT;

#endif
