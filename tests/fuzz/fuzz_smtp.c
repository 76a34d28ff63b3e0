/*
 * fuzz_smtp.c: SMTP's parsers under libFuzzer: the first byte chooses the path and parameter parser or the DATA
 * machine; for the machine the second byte says where the input is cut, and both ways must agree (data.c, D1).
 */
#include <stdlib.h>

#include "frontends/smtp/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

struct result {
    char *out;
    size_t len, used;
    struct smtp_data d;
};

static void run(const char *in, size_t n, size_t piece, bool dots, struct result *r)
{
    struct tb_slice out;
    *r = (struct result){.out = malloc(n + 1)};
    TB_ASSERT(r->out != NULL);
    smtp_data_init(&r->d, dots);
    while (r->used < n && !r->d.ended) {
        size_t left = n - r->used;
        size_t took = smtp_data_next(&r->d, tb_slice(in + r->used, left < piece ? left : piece), &out);
        TB_ASSERT(took > 0 && took <= left && out.len <= took);
        TB_ASSERT(out.len == 0 || (out.ptr >= in + r->used && out.ptr + out.len <= in + r->used + took));
        if (out.len > 0)
            memcpy(r->out + r->len, out.ptr, out.len);
        r->len += out.len;
        r->used += took;
    }
    if (!dots)
        smtp_data_finish(&r->d);
}

static void fuzz_data(const char *in, size_t n, size_t piece, bool dots)
{
    struct result a, b;
    run(in, n, n + 1, dots, &a);
    run(in, n, piece, dots, &b);
    TB_ASSERT(a.d.ended == b.d.ended && a.d.bare == b.d.bare && a.used == b.used);
    TB_ASSERT(a.d.received == b.d.received && tb_slice_eq(tb_slice(a.out, a.len), tb_slice(b.out, b.len)));
    if (dots && a.d.ended)
        TB_ASSERT(a.used >= 3 && memcmp(in + a.used - 3, ".\r\n", 3) == 0 && (a.used == 3 || in[a.used - 4] == '\n'));
    if (!dots && !a.d.bare)
        TB_ASSERT(tb_slice_eq(tb_slice(a.out, a.len), tb_slice(in, n)));
    free(a.out);
    free(b.out);
}

static void fuzz_path(struct tb_slice in)
{
    struct smtp_path path;
    size_t used;
    (void)smtp_params_mail(in, true, 1u << 20); /* only what it reads matters here */
    (void)smtp_params_rcpt(in);
    (void)smtp_helo_valid(in);
    if (smtp_path_parse(in, &path, &used) != PATH_OK)
        return;
    TB_ASSERT(used <= in.len && used <= SMTP_PATH_MAX && in.ptr[used - 1] == '>' && path.local_len <= SMTP_LOCAL_MAX);
    for (size_t i = 0; i < path.mailbox.len; i++)
        TB_ASSERT(path.mailbox.ptr[i] >= 32 && path.mailbox.ptr[i] <= 126);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *text = (const char *)bytes;
    if (n < 2)
        return 0;
    if (bytes[0] & 1)
        fuzz_path(tb_slice(text + 1, n - 1));
    else
        fuzz_data(text + 2, n - 2, bytes[1] + 1u, bytes[0] & 2);
    return 0;
}
