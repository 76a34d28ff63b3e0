/*
 * b64.h: inside engine/codec: base64 attachments as the bytes they stand for, so that zstd sees those (40 % of the
 * bytes of mail are base64, and of every character a quarter says nothing). Exactly invertible. FORMAT.md tells the
 * layout.
 *
 * Pure, any thread; tb_b64_best decides once by what the processor can do. RFC 4648 4, RFC 2045 6.8.
 */
#ifndef TB_CODEC_B64_H
#define TB_CODEC_B64_H

#include <tambo/base.h>

enum {
    TB_B64_RAW_MAX = 1 << 20, /* larger pieces are left alone */
    TB_B64_SLACK = 32         /* readable and writable bytes behind what the kernels work on */
};

/*
 * The inner loops; a line is `chars` characters (a multiple of 4, at least 32) and CRLF.
 *   find    the first position from `at` on, in steps, whose next 32 bytes may all be base64; len if none
 *   decode  lines from p while they are whole, below end and nothing but the alphabet; chars / 4 * 3 bytes each go to
 * out (and up to TB_B64_SLACK more are spoilt); returns their number encode  the inverse of `lines` lines; reads up to
 * TB_B64_SLACK past its input, writes exactly lines * (chars + 2)
 */
struct tb_b64_kernel {
    const char *name;
    size_t (*find)(const char *p, size_t at, size_t len);
    size_t (*decode)(const char *p, const char *end, size_t chars, char *out);
    void (*encode)(const char *in, size_t lines, size_t chars, char *out);
};

extern const struct tb_b64_kernel tb_b64_portable;
const struct tb_b64_kernel *tb_b64_avx2(void); /* NULL where the processor has none */
const struct tb_b64_kernel *tb_b64_best(void);

/* tb_b64_room: scratch bytes that tb_b64_pack needs for len input bytes. */
size_t tb_b64_room(size_t len);
/*
 * tb_b64_pack: what src becomes: a table of its base64 runs, then its bytes with the runs decoded. false: src has no
 * run that is worth it (found out at about 25 ns a KiB of text), or is over TB_B64_RAW_MAX.
 *   scratch  tb_b64_room(src.len) bytes; *out lies in it and is always shorter than src
 */
bool tb_b64_pack(const struct tb_b64_kernel *kernel, struct tb_slice src, char *scratch, struct tb_slice *out);
/*
 * tb_b64_unpack: the inverse: exactly raw_len bytes into dst, or CORRUPT (whatever the bytes are, nothing else is
 * written or read but TB_B64_SLACK bytes behind `in`, which must be readable).
 */
enum tb_rc tb_b64_unpack(const struct tb_b64_kernel *kernel, struct tb_slice in, char *dst,
                         size_t raw_len) TB_USE_RESULT;

#endif
