/*
 * fuzz_codec.c: what is stored, read as if a disk had given it, under libFuzzer. The first bytes choose the size that
 * the reader expects and the dictionary; the rest is once a frame, once an inflated piece (table, text, bytes), once a
 * message to be compressed and read back.
 */
#include "engine/codec/b64.h"
#include "engine/codec/codec.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { RAW_MAX = 1 << 18 };
static struct tb_codec *codec;

static char *exactly(size_t len)
{
    char *m = malloc(len ? len : 1);
    TB_ASSERT(m != NULL);
    return m;
}

static void read_as_frame(struct tb_slice in, uint16_t dict, size_t raw_len)
{
    char *back = exactly(raw_len);
    enum tb_rc rc = tb_codec_decompress(codec, dict, in, back, raw_len);
    TB_ASSERT(rc == TB_OK || rc == TB_CORRUPT || rc == TB_NOTFOUND);
    free(back);
}

static void read_as_piece(struct tb_slice in, size_t raw_len)
{
    char *copy = exactly(in.len + TB_B64_SLACK), *fast = exactly(raw_len), *plain = exactly(raw_len);
    memset(copy, 0, in.len + TB_B64_SLACK);
    memcpy(copy, in.ptr, in.len);
    enum tb_rc a = tb_b64_unpack(tb_b64_best(), tb_slice(copy, in.len), fast, raw_len);
    enum tb_rc b = tb_b64_unpack(&tb_b64_portable, tb_slice(copy, in.len), plain, raw_len);
    TB_ASSERT(a == b && (a == TB_OK || a == TB_CORRUPT));
    TB_ASSERT(a != TB_OK || memcmp(fast, plain, raw_len) == 0);
    free(copy);
    free(fast);
    free(plain);
}

static void there_and_back(struct tb_slice in)
{
    char *src = exactly(in.len), *dst = exactly(tb_codec_bound(in.len)), *back = exactly(in.len);
    uint16_t dict;
    memcpy(src, in.ptr, in.len);
    size_t n = tb_codec_compress(codec, TB_ROLE_BODY, 0, tb_slice(src, in.len), dst, &dict);
    TB_ASSERT(tb_codec_decompress(codec, dict, tb_slice(dst, n), back, in.len) == TB_OK);
    TB_ASSERT(memcmp(back, src, in.len) == 0);
    free(src);
    free(dst);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 5)
        return 0;
    if (codec == NULL) {
        TB_ASSERT(tb_codec_init() == TB_OK);
        codec = tb_codec_new();
    }
    TB_ASSERT(codec != NULL);
    size_t raw_len = ((size_t)bytes[0] << 16 | (size_t)bytes[1] << 8 | bytes[2]) % RAW_MAX;
    uint16_t dict = (uint16_t)(bytes[3] << 8 | bytes[4] % 6);
    struct tb_slice in = tb_slice(bytes + 5, n - 5);
    read_as_frame(in, dict, raw_len);
    read_as_piece(in, raw_len);
    there_and_back(in);
    return 0;
}
