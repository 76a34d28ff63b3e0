/*
 * fuzz_mailtext.c: the values of header fields, each read by itself: RFC 2047 words, addresses, dates, subjects,
 * message ids, parameters, transfer encodings and charsets. The first byte chooses.
 */
#include "world.h"

#include "engine/mime/mime.h"

enum { ROOM = 1 << 20 };

static void words(struct tb_slice in, struct tb_buf *out)
{
    tb_header_text(in, out);
    TB_ASSERT(out->failed || tb_utf8_valid(tb_buf_all(out)));
}

static void dates(struct tb_slice in, struct tb_buf *out)
{
    struct tb_date d;
    int64_t utc;
    if (tb_date_parse(in, &d)) { /* what was understood can be written and is understood again */
        struct tb_date again;
        tb_date_rfc5322_write(d.utc_s, out);
        TB_ASSERT(tb_date_parse(tb_buf_all(out), &again) && again.utc_s == d.utc_s);
        (void)tb_date_day(d.utc_s, d.zone_min);
    }
    if (tb_date_internal_parse(in, &utc)) {
        int64_t again;
        out->len = 0;
        tb_date_internal_write(utc, out);
        TB_ASSERT(tb_date_internal_parse(tb_buf_all(out), &again) && again == utc);
    }
}

static void addresses(struct tb_slice in, struct tb_buf *out)
{
    struct tb_mime_scratch s;
    tb_mime_scratch_init(&s);
    tb_mime_addresses_write(out, &s, in, ROOM / 2);
    TB_ASSERT(out->len <= ROOM / 2 && (out->len == 0 || (out->ptr[0] == '(' && out->ptr[out->len - 1] == ')')));
    tb_mime_scratch_free(&s);
}

static void subject(struct tb_slice in, struct tb_buf *out)
{
    struct tb_buf scratch;
    tb_buf_init(&scratch, ROOM);
    tb_mime_subject_base(in, &scratch, out);
    TB_ASSERT(tb_utf8_valid(tb_buf_all(out)));
    tb_buf_free(&scratch);
}

static void ids(struct tb_slice in, struct tb_buf *out)
{
    while (tb_mime_message_id(&in, out)) {
        TB_ASSERT(memchr(out->ptr, '\0', out->len) == NULL);
        out->len = 0;
    }
}

static void params(struct tb_slice in, struct tb_buf *out)
{
    struct tb_mime_scratch s;
    tb_mime_scratch_init(&s);
    struct tb_slice rest = in;
    (void)tb_mime_token(&rest);
    size_t n = tb_mime_params_read(&s, rest);
    TB_ASSERT(n <= MIME_PARAMS_MAX);
    (void)tb_mime_param_get(&s, n, TB_SLICE("charset"), out);
    out->len = 0;
    tb_mime_params_write(out, &s, n);
    TB_ASSERT(out->len >= 3 || out->failed);
    tb_mime_scratch_free(&s);
}

/*
 * texts: any cut of the bytes gives the same output; but behind an error the C library's converters with a shift state
 * find their way back as the cut lets them.
 */
static void texts(struct tb_slice in, struct tb_buf *out)
{
    static const char *const charsets[] = {"utf-8", "iso-2022-jp", "shift_jis", "utf-7", "gb18030", "koi8-r", "utf-16"};
    if (in.len < 3)
        return;
    enum tb_encoding enc = (enum tb_encoding)((uint8_t)in.ptr[0] % (TB_ENC_UNKNOWN + 1));
    struct tb_slice charset = tb_slice_str(charsets[(uint8_t)in.ptr[1] % TB_ARRAY_LEN(charsets)]);
    size_t piece = (uint8_t)in.ptr[2] % 9 + 1;
    struct tb_text_stream t;
    struct tb_buf split;
    in = tb_slice_sub(in, 3, in.len);
    tb_text_decode(enc, charset, in, out);
    tb_buf_init(&split, ROOM);
    tb_text_stream_begin(&t, enc, charset);
    for (size_t at = 0; at < in.len; at += piece)
        tb_text_stream_put(&t, tb_slice_sub(in, at, piece), &split);
    tb_text_stream_end(&t, &split);
    bool shifts = tb_slice_eq(charset, TB_SLICE("utf-7")) || tb_slice_eq(charset, TB_SLICE("iso-2022-jp"));
    TB_ASSERT(shifts || out->failed || split.failed || tb_slice_eq(tb_buf_all(out), tb_buf_all(&split)));
    TB_ASSERT(out->failed || tb_utf8_valid(tb_buf_all(out)));
    tb_buf_free(&split);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static void (*const ways[])(struct tb_slice in, struct tb_buf * out) = {words, dates,  addresses, subject,
                                                                            ids,   params, texts};
    struct tb_buf out;
    if (n == 0)
        return 0;
    tb_buf_init(&out, ROOM);
    ways[bytes[0] % TB_ARRAY_LEN(ways)](tb_slice(bytes + 1, n - 1), &out);
    tb_buf_free(&out);
    return 0;
}
