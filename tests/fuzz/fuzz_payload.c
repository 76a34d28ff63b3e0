/*
 * fuzz_payload.c: the payloads of BLOB, ADD and MOVED, the rows in a MOVED and the images in a QUEUE, as a log might
 * hold them: decoded or refused; what was decoded and is encoded again decodes to the same.
 */
#include "world.h"

static void blob(struct tb_slice in)
{
    struct tb_pay_blob p, again;
    uint8_t out[TB_BLOB_ENCODED_MAX];
    struct tb_slice rest = in;
    if (!tb_blob_decode(&rest, &p))
        return;
    TB_ASSERT(rest.len <= in.len && !(p.shared && (p.hashed || p.pieces != 0)));
    size_t n = tb_blob_encode(&p, out);
    TB_ASSERT(n <= sizeof(out));
    rest = tb_slice(out, n);
    TB_ASSERT(tb_blob_decode(&rest, &again) && rest.len == 0);
    TB_ASSERT(again.blob == p.blob && again.body == p.body && again.size == p.size && again.pieces == p.pieces &&
              again.refs == p.refs && again.shared == p.shared && again.hashed == p.hashed &&
              again.head.clen == p.head.clen && again.head.crc == p.head.crc && again.only.clen == p.only.clen &&
              again.cache_clen == p.cache_clen && memcmp(again.sha256, p.sha256, sizeof(p.sha256)) == 0 &&
              memcmp(again.hash, p.hash, sizeof(p.hash)) == 0);
}

static void add(struct tb_slice in, uint8_t flags)
{
    struct tb_pay_add p, again;
    uint8_t out[TB_ADD_ENCODED_MAX];
    struct tb_slice rest = in;
    if (!tb_add_decode(&rest, flags, &p))
        return;
    TB_ASSERT(rest.len <= in.len);
    size_t n = tb_add_encode(&p, flags, out);
    TB_ASSERT(n <= sizeof(out));
    rest = tb_slice(out, n);
    TB_ASSERT(tb_add_decode(&rest, flags, &again) && rest.len == 0);
    TB_ASSERT(again.mbox == p.mbox && memcmp(&again.row, &p.row, sizeof(p.row)) == 0 &&
              memcmp(again.delivery, p.delivery, sizeof(p.delivery)) == 0 && again.cache_raw == p.cache_raw);
}

static void image(struct tb_slice in)
{
    struct tb_image img = {0};
    if (!tb_image_read(in, &img))
        return;
    TB_ASSERT(img.header.len == img.head.head.clen && img.rest.len >= img.head.only.clen);
    const struct tb_slice part[] = {img.header, img.list, img.rest};
    for (size_t i = 0; i < TB_ARRAY_LEN(part); i++)
        TB_ASSERT(part[i].len == 0 || (part[i].ptr >= in.ptr && part[i].ptr + part[i].len <= in.ptr + in.len));
}

static void moved(struct tb_slice in, uint8_t flags)
{
    struct tb_pay_moved p, again;
    uint8_t out[TB_MOVED_ENCODED_MAX];
    struct tb_slice rest = in;
    if (!tb_moved_decode(&rest, flags, &p))
        return;
    TB_ASSERT(rest.len <= in.len);
    size_t n = tb_moved_encode(&p, flags, out);
    TB_ASSERT(n <= sizeof(out));
    rest = tb_slice(out, n);
    TB_ASSERT(tb_moved_decode(&rest, flags, &again) && rest.len == 0 && memcmp(&again, &p, sizeof(p)) == 0);
}

static void moved_rows(struct tb_slice in)
{
    struct tb_moved_row row, again;
    struct tb_slice name, rest;
    uint8_t out[TB_MOVED_ROW_MAX];
    for (int i = 0; i < TB_MOVED_ROWS_MAX && tb_moved_row_decode(&in, &row); i++) {
        size_t n = tb_moved_row_encode(&row, out);
        TB_ASSERT(n <= sizeof(out));
        rest = tb_slice(out, n);
        TB_ASSERT(tb_moved_row_decode(&rest, &again) && rest.len == 0 && memcmp(&again, &row, sizeof(row)) == 0);
        for (uint32_t k = 0; k < row.keywords_n; k++)
            if (!tb_moved_keyword(&in, &name))
                return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 2)
        return 0;
    struct tb_slice in = tb_slice(bytes + 2, n - 2);
    switch (bytes[0] % 5) {
    case 0:
        blob(in);
        break;
    case 1:
        add(in, bytes[1]);
        break;
    case 2:
        image(in);
        break;
    case 3:
        moved(in, bytes[1]);
        break;
    default:
        moved_rows(in);
        break;
    }
    return 0;
}
