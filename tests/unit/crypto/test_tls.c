/*
 * test_tls.c: a client and a server of our own, wired in memory: handshake, data both ways, closing, refusals, whole
 * and a byte at a time.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/crypto/crypto.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct tb_tls_context *server_context, *client_context;

struct pair {
    struct tb_tls *client, *server;
    size_t step; /* bytes fed at a time; 0: all */
    bool client_ok, server_ok;
};

static int make_contexts(void **state)
{
    struct tb_buf certificate, key;
    struct tb_error err;
    enum tb_rc rc;

    (void)state;
    tb_buf_init(&certificate, 8192);
    tb_buf_init(&key, 8192);
    rc = tb_tls_selfsigned("mail.example.test", time(NULL), &certificate, &key);
    if (rc == TB_OK)
        rc = tb_tls_context_load(tb_buf_all(&certificate), tb_buf_all(&key), &server_context, &err);
    if (rc == TB_OK)
        rc = tb_tls_context_client(&client_context);
    tb_buf_free(&certificate);
    tb_buf_free(&key);
    return rc == TB_OK ? 0 : -1;
}

static int drop_contexts(void **state)
{
    (void)state;
    tb_tls_context_unref(server_context);
    tb_tls_context_unref(client_context);
    return 0;
}

static struct pair pair_new(const char *client_alpn, const char *server_alpn, size_t step)
{
    struct pair p = {.step = step, .client_ok = true, .server_ok = true};

    p.client = tb_tls_new(client_context, false, client_alpn);
    p.server = tb_tls_new(server_context, true, server_alpn);
    assert_non_null(p.client);
    assert_non_null(p.server);
    return p;
}

static void pair_free(struct pair *p)
{
    tb_tls_free(p->client);
    tb_tls_free(p->server);
}

static bool feed(struct tb_tls *t, struct tb_slice bytes, size_t step)
{
    bool ok = true;

    if (step == 0)
        return tb_tls_feed(t, bytes);
    for (size_t at = 0; at < bytes.len; at += step)
        ok = tb_tls_feed(t, tb_slice_sub(bytes, at, step)) && ok;
    return ok;
}

static void assert_reads(struct tb_tls *t, const char *expected, bool expect_closed)
{
    char text[256];
    size_t len = 0, n;
    bool closed;

    while ((n = tb_tls_read(t, text + len, sizeof(text) - len, &closed)) > 0)
        len += n;
    assert_true(tb_slice_eq(tb_slice(text, len), tb_slice_str(expected)));
    assert_int_equal(closed, expect_closed);
}

/* Carry bytes over and back until there are none. */
static void shake(struct pair *p)
{
    struct tb_buf wire;
    bool moved = true;

    tb_buf_init(&wire, 1 << 20);
    while (moved) {
        moved = false;
        tb_tls_drain(p->client, &wire);
        if (wire.len > 0) {
            p->server_ok = feed(p->server, tb_buf_all(&wire), p->step);
            moved = true;
        }
        wire.len = 0;
        tb_tls_drain(p->server, &wire);
        if (wire.len > 0) {
            p->client_ok = feed(p->client, tb_buf_all(&wire), p->step);
            moved = true;
        }
        wire.len = 0;
    }
    tb_buf_free(&wire);
}

static void talk_with_step(size_t step)
{
    struct pair p = pair_new(NULL, "imap", step);
    struct tb_buf wire;
    char byte;
    bool closed;

    tb_buf_init(&wire, 1 << 20);
    assert_false(tb_tls_write(p.server, TB_SLICE("too early"), &wire));
    assert_int_equal(wire.len, 0);
    assert_int_equal(tb_tls_read(p.server, &byte, 1, &closed), 0);
    assert_false(closed);
    assert_string_equal(tb_tls_describe(p.server), "");
    shake(&p);
    assert_true(p.client_ok && p.server_ok);
    assert_true(tb_tls_established(p.client) && tb_tls_established(p.server));
    assert_memory_equal(tb_tls_describe(p.server), "TLSv1.3 TLS_", 12);
    assert_string_equal(tb_tls_describe(p.server), tb_tls_describe(p.client));
    assert_reads(p.client, "", false); /* takes the ticket */

    assert_true(tb_tls_write(p.server, TB_SLICE("* OK ready\r\n"), &wire));
    assert_true(tb_tls_write(p.server, TB_SLICE(""), &wire));
    assert_true(tb_tls_write(p.server, TB_SLICE("more\r\n"), &wire));
    assert_true(feed(p.client, tb_buf_all(&wire), step));
    assert_reads(p.client, "* OK ready\r\nmore\r\n", false);
    wire.len = 0;
    assert_true(tb_tls_write(p.client, TB_SLICE("a LOGOUT\r\n"), &wire));
    tb_tls_close(p.client, &wire);
    assert_true(feed(p.server, tb_buf_all(&wire), step));
    assert_reads(p.server, "a LOGOUT\r\n", true); /* data first, then the end */
    wire.len = 0;
    assert_true(tb_tls_write(p.server, TB_SLICE("* BYE\r\n"), &wire)); /* half closed: the other half still works */
    tb_tls_close(p.server, &wire);
    assert_true(wire.len > 7);
    tb_buf_free(&wire);
    pair_free(&p);
}

static void talk(void **state)
{
    (void)state;
    talk_with_step(0);
    talk_with_step(1);
    talk_with_step(7);
}

static void bulk(void **state)
{
    enum { BYTES = 1 << 20 };
    struct pair p = pair_new("imap", "imap", 0);
    char *data = malloc(BYTES), *back = malloc(BYTES);
    struct tb_buf wire;
    size_t got = 0, at = 0;
    bool closed;

    (void)state;
    assert_true(data && back);
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (char)(i * 31 >> 3);
    shake(&p);
    tb_buf_init(&wire, 2 * BYTES);
    assert_true(tb_tls_write(p.server, tb_slice(data, BYTES), &wire));
    for (size_t chunk = 1; at < wire.len; at += chunk, chunk = chunk * 3 % 40001 + 1) {
        size_t n;

        assert_true(tb_tls_feed(p.client, tb_slice_sub(tb_buf_all(&wire), at, chunk)));
        while ((n = tb_tls_read(p.client, back + got, BYTES - got < 999 ? BYTES - got : 999, &closed)) > 0)
            got += n;
    }
    assert_int_equal(got, BYTES);
    assert_memory_equal(back, data, BYTES);
    tb_buf_free(&wire);
    tb_buf_init(&wire, 1000); /* output that does not fit: broken, not truncated */
    assert_false(tb_tls_write(p.server, tb_slice(data, 5000), &wire));
    assert_false(tb_tls_write(p.server, tb_slice(data, 1), &wire));
    assert_false(tb_tls_feed(p.server, TB_SLICE("x")));
    tb_buf_free(&wire);
    free(data);
    free(back);
    pair_free(&p);
}

static void alpn(void **state)
{
    struct pair p = pair_new("imap", "imap", 1);

    (void)state;
    shake(&p);
    assert_true(tb_tls_established(p.client) && tb_tls_established(p.server));
    pair_free(&p);
    p = pair_new("imap", NULL, 0); /* not checked */
    shake(&p);
    assert_true(tb_tls_established(p.server));
    pair_free(&p);
    p = pair_new("http/1.1", "imap", 0); /* RFC 7301 3.2 */
    shake(&p);
    assert_false(tb_tls_established(p.server));
    assert_false(p.server_ok);
    assert_false(p.client_ok); /* it was told by an alert */
    assert_reads(p.server, "", true);
    pair_free(&p);
    p = pair_new("imap4", "imap", 0); /* a prefix is no match */
    shake(&p);
    assert_false(p.server_ok);
    pair_free(&p);
}

static void damage(void **state)
{
    struct pair p = pair_new(NULL, NULL, 0);
    struct tb_buf wire;
    char byte;
    bool closed;

    (void)state;
    tb_buf_init(&wire, 1 << 20);
    assert_false(tb_tls_feed(p.server, TB_SLICE("a1 LOGIN user secret\r\n"))); /* a client that forgot TLS */
    tb_tls_drain(p.server, &wire);
    assert_int_equal(wire.len, 7); /* an alert */
    assert_int_equal(wire.ptr[0], 21);
    assert_int_equal(tb_tls_read(p.server, &byte, 1, &closed), 0);
    assert_true(closed);
    pair_free(&p);

    p = pair_new(NULL, NULL, 0);
    shake(&p);
    wire.len = 0;
    assert_true(tb_tls_write(p.client, TB_SLICE("hello"), &wire));
    wire.ptr[wire.len - 1] ^= 1;
    assert_true(tb_tls_feed(p.server, tb_buf_all(&wire)));
    assert_int_equal(tb_tls_read(p.server, &byte, 1, &closed), 0);
    assert_true(closed);
    assert_false(tb_tls_feed(p.server, TB_SLICE("x")));
    wire.len = 0;
    tb_tls_drain(p.server, &wire);
    assert_true(wire.len > 0); /* bad_record_mac */
    assert_false(tb_tls_write(p.server, TB_SLICE("x"), &wire));
    pair_free(&p);
    tb_buf_free(&wire);
}

static void hostile_feed_is_bounded(void **state)
{
    static char block[64 << 10];
    struct pair p = pair_new(NULL, NULL, 0);
    int fed = 0;

    (void)state;
    shake(&p);
    while (fed < 1000 && tb_tls_feed(p.server, tb_slice(block, sizeof(block)))) /* never read */
        fed++;
    assert_true(fed < 100);
    pair_free(&p);
}

static void certificates(void **state)
{
    struct tb_buf certificate, key, other, other_key;
    struct tb_tls_context *c = NULL;
    struct tb_error err = {0};
    struct tb_slice cut;

    (void)state;
    tb_buf_init(&certificate, 8192);
    tb_buf_init(&key, 8192);
    tb_buf_init(&other, 8192);
    tb_buf_init(&other_key, 8192);
    assert_int_equal(tb_tls_selfsigned("", 0, &certificate, &key), TB_INVALID);
    assert_int_equal(tb_tls_selfsigned("a\nb", 0, &certificate, &key), TB_INVALID);
    assert_int_equal(tb_tls_selfsigned("::1", 1700000000, &certificate, &key), TB_OK);
    assert_int_equal(tb_tls_selfsigned("b.test", 4000000000, &other, &other_key), TB_OK); /* past 2049 */
    assert_int_equal(tb_tls_context_load(tb_buf_all(&certificate), tb_buf_all(&other_key), &c, &err), TB_INVALID);
    assert_memory_equal(err.text, "the key does not belong", 23);
    assert_int_equal(tb_tls_context_load(TB_SLICE(""), tb_buf_all(&key), &c, &err), TB_INVALID);
    assert_int_equal(tb_tls_context_load(TB_SLICE("garbage"), tb_buf_all(&key), &c, &err), TB_INVALID);
    assert_int_equal(tb_tls_context_load(tb_buf_all(&certificate), TB_SLICE("x"), &c, &err), TB_INVALID);
    cut = tb_slice_sub(tb_buf_all(&certificate), 0, certificate.len / 2);
    assert_int_equal(tb_tls_context_load(cut, tb_buf_all(&key), &c, &err), TB_INVALID);
    tb_buf_slice(&certificate, tb_buf_all(&other)); /* a chain, and text behind it */
    tb_buf_str(&certificate, "\nnotes\n");
    assert_int_equal(tb_tls_context_load(tb_buf_all(&certificate), tb_buf_all(&key), &c, &err), TB_OK);
    assert_ptr_equal(tb_tls_context_ref(c), c);
    tb_tls_context_unref(c);
    tb_tls_context_unref(c);
    tb_tls_context_unref(NULL);
    tb_buf_free(&certificate);
    tb_buf_free(&key);
    tb_buf_free(&other);
    tb_buf_free(&other_key);
}

static void idle_memory(void **state)
{
    enum { MANY = 200, BYTES_MAX = 12 << 10 };
    static struct tb_tls *servers[MANY];
    struct mallinfo2 before, after;
    long each;

    (void)state;
    {
        struct pair warm_up = pair_new(NULL, NULL, 0);

        shake(&warm_up);
        pair_free(&warm_up);
    }
    before = mallinfo2();
    for (int i = 0; i < MANY; i++) {
        struct pair p = pair_new(NULL, NULL, 0);
        struct tb_buf wire;

        shake(&p);
        tb_buf_init(&wire, 1 << 20);
        assert_true(tb_tls_write(p.client, TB_SLICE("a1 NOOP\r\n"), &wire));
        assert_true(tb_tls_feed(p.server, tb_buf_all(&wire)));
        assert_reads(p.server, "a1 NOOP\r\n", false);
        wire.len = 0;
        assert_true(tb_tls_write(p.server, TB_SLICE("a1 OK\r\n"), &wire));
        tb_buf_free(&wire);
        tb_tls_free(p.client);
        servers[i] = p.server;
    }
    after = mallinfo2();
    for (int i = 0; i < MANY; i++)
        tb_tls_free(servers[i]);
    each = ((long)after.uordblks - (long)before.uordblks) / MANY;
    print_message("idle server connection: %ld bytes of heap\n", each);
#ifndef __SANITIZE_ADDRESS__
    assert_true(each < BYTES_MAX);
#endif
}

/* Made by openssl, in DER: rfc822Name ann@example.test among others and CN=ann; two of each. */
/* clang-format off */
static const char one_name[] =
    "MIIBsDCCAVagAwIBAgIUQo1ohWdWkZcn+U9duIlGQpeazmUwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EwHhcNMjYxMTIzMjMx"
    "MTU1WhcNMjYxMTI1MjMxMTU1WjAaMQowCAYDVQQKDAF4MQwwCgYDVQQDDANhbm4wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATA"
    "0qkhCKp9GFM3dWY0Lf3W6IZVwtgY9UdTCSUJ9KsSlIlUubCllAzymzDqsbq7vviyOuW6b0HnORIiwjlhY1sXo4GGMIGDMBMGA1Ud"
    "JQQMMAoGCCsGAQUFBwMCMCwGA1UdEQQlMCOBEGFubkBleGFtcGxlLnRlc3SCCXguZXhhbXBsZYcEfwAAATAdBgNVHQ4EFgQUa+bU"
    "dyR1ZR+T39wdznhcpsOl1MYwHwYDVR0jBBgwFoAUtyTSJLXumsDYUnck6LdSMD1yil8wCgYIKoZIzj0EAwIDSAAwRQIgZJPYIwV2"
    "bcytWK5m/8ynttZyt57M5/kpEviI3+haF4kCIQCGocqy4qZwtW1a1dwYM3zHKRctuoDEsiINf01VdQvHLA==";
static const char two_names[] =
    "MIIBlDCCATmgAwIBAgIUQo1ohWdWkZcn+U9duIlGQpeazmYwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EwHhcNMjYxMTIzMjMx"
    "MTU1WhcNMjYxMTI1MjMxMTU1WjAYMQowCAYDVQQDDAFhMQowCAYDVQQDDAFiMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESKCZ"
    "6x7vF0z/rkbD7ndOqnXRLh8MZtKiNT5S1G/5hzuj+Gr7OZRjz+/fDWPqIUa1D/eLaGj6hn1sRXAv69WlnKNsMGowEwYDVR0lBAww"
    "CgYIKwYBBQUHAwIwEwYDVR0RBAwwCoEDYUBigQNjQGQwHQYDVR0OBBYEFB+XpW+whP6sgpkqXCci8pfnEDs9MB8GA1UdIwQYMBaA"
    "FLck0iS17prA2FJ3JOi3UjA9copfMAoGCCqGSM49BAMCA0kAMEYCIQD8I6shuGpH76StdOtorWsBFp6nmIbx7CaRaJeutqSkBgIh"
    "AJF9cMSdKMBn5Kg7joIgPRYrTjd0t3mnHKv5t4evsXn3";
/* clang-format on */

static void certificate_names(void **state)
{
    struct tb_buf der;
    char name[40];

    (void)state;
    tb_buf_init(&der, 4096);
    assert_true(tb_base64_decode(tb_slice_str(one_name), &der));
    assert_true(tb_certificate_name(tb_buf_all(&der), "email", 39, name));
    assert_string_equal(name, "ann@example.test");
    assert_true(tb_certificate_name(tb_buf_all(&der), "cn", 39, name));
    assert_string_equal(name, "ann");
    assert_false(tb_certificate_name(tb_buf_all(&der), "email", 15, name)); /* too long by one */
    for (size_t n = 0; n < der.len; n++)
        assert_false(tb_certificate_name(tb_slice(der.ptr, n), "cn", 39, name));
    der.len = 0;
    assert_true(tb_base64_decode(tb_slice_str(two_names), &der));
    assert_false(tb_certificate_name(tb_buf_all(&der), "email", 39, name));
    assert_false(tb_certificate_name(tb_buf_all(&der), "cn", 39, name));
    tb_buf_free(&der);
}

/* Both ends of a connection know the same; two connections never do (RFC 9266). */
static void bindings(void **state)
{
    struct pair a = pair_new("imap", "imap", 0), b = pair_new("imap", "imap", 0);
    uint8_t one[TB_TLS_BINDING_MAX], two[TB_TLS_BINDING_MAX];
    size_t one_len, two_len;

    (void)state;
    assert_false(tb_tls_binding(a.server, "tls-exporter", one, &one_len)); /* not yet */
    shake(&a);
    shake(&b);
    assert_true(tb_tls_binding(a.server, "tls-exporter", one, &one_len));
    assert_true(tb_tls_binding(a.client, "tls-exporter", two, &two_len));
    assert_int_equal(one_len, 32);
    assert_int_equal(two_len, 32);
    assert_memory_equal(one, two, 32);
    assert_true(tb_tls_binding(b.server, "tls-exporter", two, &two_len));
    assert_memory_not_equal(one, two, 32);
    assert_true(tb_tls_binding(a.server, "tls-server-end-point", one, &one_len));
    assert_true(tb_tls_binding(b.server, "tls-server-end-point", two, &two_len));
    assert_int_equal(one_len, 32);
    assert_memory_equal(one, two, 32);
    assert_false(tb_tls_binding(a.client, "tls-server-end-point", one, &one_len)); /* has no certificate of its own */
    assert_false(tb_tls_binding(a.server, "tls-unique", one, &one_len));           /* TLS 1.3 has none */
    assert_false(tb_tls_binding(a.server, "tls-nonsense", one, &one_len));
    assert_false(tb_tls_binding(NULL, "tls-exporter", one, &one_len));
    pair_free(&a);
    pair_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificate_names),
        cmocka_unit_test(bindings),
        cmocka_unit_test(talk),
        cmocka_unit_test(bulk),
        cmocka_unit_test(alpn),
        cmocka_unit_test(damage),
        cmocka_unit_test(certificates),
        cmocka_unit_test(hostile_feed_is_bounded),
        cmocka_unit_test(idle_memory),
    };

    return cmocka_run_group_tests(tests, make_contexts, drop_contexts);
}
