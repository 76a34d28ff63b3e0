/*
 * delivery_format.h: how a message is cut into pieces. Private to engine/store; part of the disk format
 * (docs/FORMAT.md).
 *
 * head piece: the header with its empty line, but at most TB_HEAD_RAW_MAX bytes of it. Body pieces: all the rest; one
 * piece up to TB_BODY_ONE_MAX bytes, beyond that independent pieces of TB_CHUNK_RAW bytes (the last one shorter). In a
 * batch a body of any size may be in two pieces or more.
 */
#ifndef TB_DELIVERY_FORMAT_H
#define TB_DELIVERY_FORMAT_H

enum {
    TB_HEAD_RAW_MAX = 256 << 10,
    TB_BODY_ONE_MAX = 1 << 20,
    TB_CHUNK_RAW = 256 << 10,
    TB_PIECE_RAW_MAX = TB_BODY_ONE_MAX,
    TB_PIECE_CLEN_MAX = TB_BODY_ONE_MAX + 4096,
    TB_DEDUP_RAW_MIN = 8 << 10,  /* shorter bodies are not looked up by hash */
    TB_CACHE_RAW_MAX = 256 << 10 /* longer ones are not kept */
};

#endif
