/*
 * dict.h: inside engine/codec: a dictionary, digested for every use. Shared by all threads and read only, but for
 * levels that are digested when they are first asked for, under a lock of its own.
 */
#ifndef TB_CODEC_DICT_H
#define TB_CODEC_DICT_H

#include "engine/codec/codec.h"

#define ZSTD_STATIC_LINKING_ONLY /* for ZSTD_createCDict_advanced and ZSTD_c_forceAttachDict */
#include <zstd.h>

enum { TB_LEVEL_DELIVERY = 1, TB_LEVEL_MAX = 12 }; /* above, memory grows past what a helper thread should take */

struct tb_codec_dict {
    uint16_t id;
    enum tb_codec_role role;
    struct tb_slice bytes; /* in `own`, or compiled in */
    char *own;             /* owned; NULL if built in */
    ZSTD_DDict *decompress;
    ZSTD_CDict *_Atomic compress[TB_LEVEL_MAX + 1];
};

/* tb_dict_builtin: the newest one of a role; tb_dict_builtin_by_id: any of them, NULL if there is none. After
 * tb_codec_init. */
const struct tb_codec_dict *tb_dict_builtin(enum tb_codec_role role);
const struct tb_codec_dict *tb_dict_builtin_by_id(uint16_t id);
/* tb_dict_init: digest those compiled in; once. LIMIT without memory. */
enum tb_rc tb_dict_init(void) TB_USE_RESULT;
/* tb_dict_at: digested for a level; NULL without memory. Any thread. */
const ZSTD_CDict *tb_dict_at(const struct tb_codec_dict *d, int level);
/* tb_dict_digest: the same, but a copy of the caller's own, over bytes that stay where they are. */
ZSTD_CDict *tb_dict_digest(struct tb_slice bytes, enum tb_codec_role role, int level, unsigned hash_log);

#endif
