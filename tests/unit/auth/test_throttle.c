/*
 * test_throttle.c: twenty failures a minute, ten of them at once; what counts together and what does not.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/throttle.h"

#include <stdio.h>

static const uint64_t second = 1000000000u;

static const struct tb_throttle_limits limits = {20, 20};

static void fail_times(const char *peer, const char *account, int times, uint64_t now)
{
    for (int i = 0; i < times; i++)
        tb_throttle_failed(&limits, peer, tb_slice_str(account), now);
}

static bool blocked(const char *peer, const char *account, uint64_t now)
{
    return tb_throttle_blocked(&limits, peer, tb_slice_str(account), now);
}

static void networks(void **state)
{
    uint64_t now = 1000 * second;
    char name[32];

    (void)state;
    for (int i = 0; i < 9; i++) { /* another account each time: the network is what counts */
        (void)snprintf(name, sizeof(name), "n%d", i);
        fail_times("192.0.2.1", name, 1, now);
    }
    assert_false(blocked("192.0.2.1", "fresh", now));
    fail_times("192.0.2.77", "n9", 1, now);
    assert_true(blocked("192.0.2.1", "fresh", now));
    assert_true(blocked("192.0.2.200", "fresh", now));
    assert_true(blocked("::ffff:192.0.2.3", "fresh", now));
    assert_false(blocked("192.0.3.1", "fresh", now));
    assert_false(blocked("127.0.0.1", "fresh", now));
    assert_true(blocked("192.0.2.1", "fresh", now + 1));
    assert_true(blocked("192.0.2.1", "fresh", now + 6 * second - 1));
    assert_false(blocked("192.0.2.1", "fresh", now + 6 * second)); /* one attempt has come free */
    fail_times("192.0.2.1", "n20", 1, now + 6 * second);
    assert_true(blocked("192.0.2.1", "fresh", now + 6 * second + 1));
    assert_false(blocked("192.0.2.1", "fresh", now + 70 * second));
    fail_times("192.0.2.1", "n21", 1000000, now + 70 * second); /* a debt never grows past a minute */
    assert_true(blocked("192.0.2.1", "fresh", now + 75 * second));
    assert_false(blocked("192.0.2.1", "fresh", now + 76 * second));

    fail_times("2001:db8:1:2::1", "v6", 9, now);
    fail_times("2001:db8:1:2:ffff::9%eth0", "v6b", 1, now);
    assert_true(blocked("2001:db8:1:2:3:4:5:6", "fresh", now));
    assert_false(blocked("2001:db8:1:3::1", "fresh", now));
}

static void accounts(void **state)
{
    uint64_t now = 2000 * second;
    char peer[32];

    (void)state;
    for (int i = 0; i < 10; i++) {
        (void)snprintf(peer, sizeof(peer), "10.1.%d.1", i);
        fail_times(peer, "victim", 1, now);
    }
    assert_true(blocked("10.2.0.1", "victim", now));
    assert_true(blocked("10.2.0.1", "VICTIM", now));
    assert_true(blocked("unix", "victim", now));
    assert_false(blocked("10.2.0.1", "other", now));
    tb_throttle_passed("10.9.9.9", TB_SLICE("victim"), now - 86400 * second); /* its owner's place */
    assert_false(blocked("10.9.9.1", "victim", now));
    assert_true(blocked("10.2.0.1", "victim", now));
    assert_true(blocked("10.9.9.1", "victim", now + 8 * 86400 * second) == false);
    fail_times("10.9.9.9", "x", 10, now); /* the network's own limit stays */
    assert_true(blocked("10.9.9.1", "victim", now));
}

/* Somebody who tries as often as he is let: in no minute more than the limit. */
static void never_more_in_a_minute(void **state)
{
    static const uint32_t some[] = {2, 3, 7, 20, 60, 1000};

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(some); i++) {
        struct tb_throttle_limits l = {.account = some[i]};
        uint64_t begin = (10000 + 1000 * i) * second, tried[3000];
        size_t n = 0, in_minute = 0, from = 0;
        char account[32];

        (void)snprintf(account, sizeof(account), "eager%u", some[i]);
        for (uint64_t now = begin; now < begin + 180 * second; now += second / 100) {
            if (tb_throttle_blocked(&l, "unix", tb_slice_str(account), now))
                continue;
            tb_throttle_failed(&l, "unix", tb_slice_str(account), now);
            tried[n++] = now;
            while (tried[from] + 60 * second <= now)
                from++;
            in_minute = n - from > in_minute ? n - from : in_minute;
            assert_true(n < TB_ARRAY_LEN(tried));
        }
        assert_true(in_minute <= some[i]);
        assert_true(n >= some[i] + some[i] / 2); /* and it is not one much smaller */
    }
}

static void without_limits(void **state)
{
    static const struct tb_throttle_limits none = {0};

    (void)state;
    for (int i = 0; i < 10000; i++) {
        tb_throttle_failed(&none, "203.0.113.1", TB_SLICE("free"), 9000 * second);
        assert_false(tb_throttle_blocked(&none, "203.0.113.1", TB_SLICE("free"), 9000 * second));
    }
    assert_false(blocked("203.0.113.1", "free", 9000 * second));
}

static void local(void **state)
{
    uint64_t now = 3000 * second;
    static const char *const peers[] = {"127.0.0.1", "127.9.9.9", "::1", "unix", "::ffff:127.0.0.1", ""};

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(peers); i++) {
        char account[32];

        (void)snprintf(account, sizeof(account), "local%zu", i);
        fail_times(peers[i], account, 10, now);
        assert_true(blocked(peers[i], account, now));
        tb_throttle_passed(peers[i], tb_slice_str(account), now); /* webmail's peer is its owners' and its attackers' */
        assert_true(blocked(peers[i], account, now));
        assert_false(blocked(peers[i], "somebody", now));
    }
}

static void memory_is_fixed(void **state)
{
    uint64_t now = 4000 * second;
    char peer[64], account[600];

    (void)state;
    fail_times("172.16.0.1", "heavy", 10, now);
    for (uint32_t i = 0; i < 20000; i++) { /* each owes little: the heavy one is not the one forgotten */
        (void)snprintf(peer, sizeof(peer), "2001:db8:%x:%x::1", i & 0xffff, 77 + (i >> 16));
        (void)snprintf(account, sizeof(account), "%0500u", i);
        tb_throttle_failed(&limits, peer, tb_slice_str(account), now);
    }
    assert_true(blocked("172.16.0.1", "heavy", now));
}

static int set_key(void **state)
{
    (void)state;
    tb_throttle_key((const uint8_t *)"0123456789abcdef");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(networks),       cmocka_unit_test(accounts),
                                       cmocka_unit_test(local),          cmocka_unit_test(never_more_in_a_minute),
                                       cmocka_unit_test(without_limits), cmocka_unit_test(memory_is_fixed)};

    return cmocka_run_group_tests(tests, set_key, NULL);
}
