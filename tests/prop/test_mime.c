/*
 * test_mime.c: properties of the MIME scanner over seeded random messages. TAMBO_SEED chooses the first seed,
 * TAMBO_ROUNDS how many.
 *
 * 1 A well-formed tree comes back as it was built: kinds, offsets, sizes, line counts (the generator is the model).
 *
 * 2 Any split of any bytes gives the same results.
 *
 * 3 The table and the texts of any bytes agree: children inside of their parents, ascending offsets, the same sizes.
 */
#include "tests/unit/mime/mime_test.h"

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 11) % below;
}

/* ---- 1: the model ---- */

enum { NODES_MAX = 200 };
struct node {
    enum tb_part_kind kind;
    uint64_t header, body, end;
    uint32_t lines, children;
};
static struct node nodes[NODES_MAX];
static uint32_t nodes_n;
static struct tb_buf message;

static uint32_t lines_between(uint64_t from, uint64_t to)
{
    uint32_t n = 0;
    for (uint64_t i = from; i < to; i++)
        n += message.ptr[i] == '\n';
    return n;
}

static void put_text(void)
{
    static const char *const lines[] = {"hello world", "--", "-- ",     "--almost", "",
                                        " --b1",       "..", "From me", "dGVzdA==", "-"};
    for (uint32_t n = rnd(6); n > 0; n--) {
        tb_buf_str(&message, lines[rnd(TB_ARRAY_LEN(lines))]);
        tb_buf_str(&message, n > 1 || rnd(2) ? "\r\n" : "");
    }
}

/* One entity, its header included. The recursion here is the test's own, bounded by depth. */
static void put_entity(int depth)
{
    struct node *n = &nodes[nodes_n++];
    uint32_t what = depth > 4 || nodes_n > NODES_MAX / 2 ? rnd(2) : rnd(5);
    *n = (struct node){.header = message.len, .kind = TB_PART_LEAF};
    if (rnd(2))
        tb_buf_str(&message, "X-Junk: a\r\n folded\r\n");
    if (what == 0) {
        n->kind = TB_PART_TEXT;
        tb_buf_str(&message, rnd(2) ? "\r\n" : "content-type: TEXT/html; charset=x\r\n\r\n");
        n->body = message.len;
        put_text();
    } else if (what == 1) {
        tb_buf_str(&message, "Content-Type: image/gif\r\n\r\n");
        n->body = message.len;
        put_text();
    } else if (what == 2) {
        n->kind = TB_PART_MESSAGE;
        n->children = 1;
        tb_buf_str(&message, "Content-Type: message/rfc822\r\n\r\n");
        n->body = message.len;
        put_entity(depth + 1);
    } else {
        char boundary[32], line[128];
        snprintf(boundary, sizeof(boundary), "b%u_%u", nodes_n, rnd(1000));
        snprintf(line, sizeof(line), "Content-Type: multipart/mixed;\r\n boundary=\"%s\"\r\n\r\n", boundary);
        n->kind = TB_PART_MULTIPART;
        n->children = 1 + rnd(4);
        tb_buf_str(&message, line);
        n->body = message.len;
        tb_buf_str(&message, rnd(2) ? "preamble\r\n" : "");
        for (uint32_t i = 0; i < n->children; i++) {
            snprintf(line, sizeof(line), "%s--%s%s\r\n", i > 0 ? "\r\n" : "", boundary, rnd(4) ? "" : " \t");
            tb_buf_str(&message, line);
            put_entity(depth + 1);
        }
        snprintf(line, sizeof(line), "\r\n--%s--", boundary);
        tb_buf_str(&message, line);
        tb_buf_str(&message, rnd(2) ? "\r\nepilogue" : "");
    }
    n->end = message.len;
    n->lines = lines_between(n->body, n->end);
}

static void check_model(uint64_t which)
{
    struct tb_part p;
    size_t cursor = 0;
    for (uint32_t i = 0; i < nodes_n; i++) {
        const struct node *n = &nodes[i];
        assert_int_equal(tb_parts_next(result.parts, &cursor, &p), TB_OK);
        if (p.kind != n->kind || p.header_offset != n->header || p.body_offset != n->body ||
            p.body_offset + p.body_size != n->end || p.children != n->children ||
            (n->kind != TB_PART_MULTIPART && p.lines != n->lines))
            fail_msg("seed %llu part %u of\n%.*s", (unsigned long long)which, i, (int)message.len, message.ptr);
    }
    assert_int_equal(tb_parts_next(result.parts, &cursor, &p), TB_NOTFOUND);
}

/* ---- 2 and 3: any bytes ---- */

static void mutate(void)
{
    for (uint32_t n = rnd(12); n > 0 && message.len > 0; n--) {
        uint32_t at = rnd((uint32_t)message.len), len = rnd(40);
        if (len > message.len - at)
            len = (uint32_t)message.len - at;
        switch (rnd(4)) {
        case 0:
            message.ptr[at] = (char)rnd(256);
            break;
        case 1: /* cut */
            memmove(message.ptr + at, message.ptr + at + len, message.len - at - len);
            message.len -= len;
            break;
        case 2: /* repeat at the end */
            if (tb_buf_reserve(&message, len) != NULL)
                tb_buf_put(&message, message.ptr + at, len);
            break;
        default:
            message.ptr[at] = "\r\n\0:;-\"()<>@,="[rnd(14)];
            break;
        }
    }
}

static void keep(struct tb_buf *b)
{
    b->len = 0;
    tb_buf_slice(b, result.envelope);
    tb_buf_slice(b, result.bodystructure);
    tb_buf_slice(b, result.parts);
    tb_buf_slice(b, result.subject_base);
    tb_buf_slice(b, result.references);
    tb_buf_slice(b, result.message_id);
    tb_buf_u64(b, result.size);
    tb_buf_char(b, ' ');
    tb_buf_u64(b, result.header_size);
}

static void check_splits(uint64_t which)
{
    struct tb_buf whole, pieces;
    tb_buf_init(&whole, 64 << 20);
    tb_buf_init(&pieces, 64 << 20);
    keep(&whole);
    for (uint32_t round = 0; round < 3; round++) {
        uint32_t most = round == 0 ? 1 : round == 1 ? 5 : 400;
        tb_mime_reset(scanner);
        for (size_t at = 0; at < message.len;) {
            size_t n = 1 + rnd(most);
            struct tb_slice s = tb_slice_sub(tb_buf_all(&message), at, n);
            char *copy = malloc(s.len); /* exactly as long, so that reading beyond shows */
            assert_non_null(copy);
            memcpy(copy, s.ptr, s.len);
            tb_mime_feed(scanner, tb_slice(copy, s.len));
            free(copy);
            at += s.len;
        }
        assert_int_equal(tb_mime_finish(scanner, &result), TB_OK);
        keep(&pieces);
        if (!tb_slice_eq(tb_buf_all(&whole), tb_buf_all(&pieces)))
            fail_msg("seed %llu: split differs, pieces of at most %u", (unsigned long long)which, most);
    }
    tb_buf_free(&whole);
    tb_buf_free(&pieces);
}

/* Ranges nest, the tree is whole, and the text shows the sizes in the table's order. */
static void check_agreement(void)
{
    struct tb_part open[TB_MIME_DEPTH_MAX], p;
    uint32_t left[TB_MIME_DEPTH_MAX], depth = 0;
    size_t cursor = 0;
    uint64_t last = 0;
    struct tb_slice text = result.bodystructure;
    while (tb_parts_next(result.parts, &cursor, &p) == TB_OK) {
        assert_true(p.header_offset >= last);
        last = p.header_offset;
        while (depth > 0 && left[depth - 1] == 0)
            depth--;
        if (depth > 0) {
            const struct tb_part *parent = &open[depth - 1];
            assert_true(p.header_offset >= parent->body_offset);
            assert_true(p.body_offset + p.body_size <=
                        parent->body_offset + parent->body_size + 2); /* P2's blank line */
            left[depth - 1]--;
        }
        if (p.children > 0) {
            assert_true(depth < TB_MIME_DEPTH_MAX);
            open[depth] = p;
            left[depth++] = p.children;
        }
        if (p.kind != TB_PART_MULTIPART) { /* sizes appear in the text in this order */
            char want[32];
            int n = snprintf(want, sizeof(want), " %llu", (unsigned long long)p.body_size);
            const char *at = memmem(text.ptr, text.len, want, (size_t)n);
            assert_non_null(at);
            text = tb_slice(at + 1, text.len - (size_t)(at + 1 - text.ptr));
        }
    }
    while (depth > 0 && left[depth - 1] == 0)
        depth--;
    assert_int_equal(depth, 0);
}

static void test_random(void **state)
{
    (void)state;
    const char *first = getenv("TAMBO_SEED"), *rounds = getenv("TAMBO_ROUNDS");
    uint64_t from = first != NULL ? strtoull(first, NULL, 10) : 1,
             n = rounds != NULL ? strtoull(rounds, NULL, 10) : 2000;
    for (uint64_t which = from; which < from + n; which++) {
        seed = which * 0x9e3779b97f4a7c15u + 1;
        tb_buf_init(&message, 16 << 20);
        nodes_n = 0;
        put_entity(0);
        scan(tb_buf_all(&message));
        check_model(which);
        assert_sound();
        check_agreement();
        check_splits(which);
        for (int i = 0; i < 4; i++) {
            mutate();
            scan(tb_buf_all(&message));
            assert_sound();
            check_agreement();
            check_splits(which);
        }
        tb_buf_free(&message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, setup_scanner, free_scanner);
}
