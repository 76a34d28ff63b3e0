/*
 * test_throttle.c: twenty failures a minute; what counts together and what does not.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/throttle.h"

#include <stdio.h>

static const uint64_t second = 1000000000u;

static void fail_times(const char *peer, const char *account, int times, uint64_t now)
{
    for (int i = 0; i < times; i++)
        tb_throttle_failed(peer, tb_slice_str(account), now);
}

static bool blocked(const char *peer, const char *account, uint64_t now)
{
    return tb_throttle_blocked(peer, tb_slice_str(account), now);
}

static void networks(void **state)
{
    uint64_t now = 1000 * second;
    char name[32];

    (void)state;
    for (int i = 0; i < 19; i++) { /* another account each time: the network is what counts */
        (void)snprintf(name, sizeof(name), "n%d", i);
        fail_times("192.0.2.1", name, 1, now);
    }
    assert_false(blocked("192.0.2.1", "fresh", now));
    fail_times("192.0.2.77", "n19", 1, now);
    assert_true(blocked("192.0.2.1", "fresh", now));
    assert_true(blocked("192.0.2.200", "fresh", now));
    assert_true(blocked("::ffff:192.0.2.3", "fresh", now));
    assert_false(blocked("192.0.3.1", "fresh", now));
    assert_false(blocked("127.0.0.1", "fresh", now));
    assert_false(blocked("192.0.2.1", "fresh", now + 4 * second)); /* one attempt has come free */
    fail_times("192.0.2.1", "n20", 2, now + 4 * second);
    assert_true(blocked("192.0.2.1", "fresh", now + 4 * second));
    assert_false(blocked("192.0.2.1", "fresh", now + 70 * second));
    fail_times("192.0.2.1", "n21", 1000000, now + 70 * second); /* a debt never grows past a minute */
    assert_true(blocked("192.0.2.1", "fresh", now + 70 * second));
    assert_false(blocked("192.0.2.1", "fresh", now + 131 * second));

    fail_times("2001:db8:1:2::1", "v6", 19, now);
    fail_times("2001:db8:1:2:ffff::9%eth0", "v6b", 1, now);
    assert_true(blocked("2001:db8:1:2:3:4:5:6", "fresh", now));
    assert_false(blocked("2001:db8:1:3::1", "fresh", now));
}

static void accounts(void **state)
{
    uint64_t now = 2000 * second;
    char peer[32];

    (void)state;
    for (int i = 0; i < 20; i++) {
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
    fail_times("10.9.9.9", "x", 20, now); /* the network's own limit stays */
    assert_true(blocked("10.9.9.1", "victim", now));
}

static void local(void **state)
{
    uint64_t now = 3000 * second;
    static const char *const peers[] = {"127.0.0.1", "127.9.9.9", "::1", "unix", "::ffff:127.0.0.1", ""};

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(peers); i++) {
        char account[32];

        (void)snprintf(account, sizeof(account), "local%zu", i);
        fail_times(peers[i], account, 20, now);
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
    fail_times("172.16.0.1", "heavy", 20, now);
    for (uint32_t i = 0; i < 20000; i++) { /* each owes little: the heavy one is not the one forgotten */
        (void)snprintf(peer, sizeof(peer), "2001:db8:%x:%x::1", i & 0xffff, 77 + (i >> 16));
        (void)snprintf(account, sizeof(account), "%0500u", i);
        tb_throttle_failed(peer, tb_slice_str(account), now);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(networks), cmocka_unit_test(accounts), cmocka_unit_test(local),
                                       cmocka_unit_test(memory_is_fixed)};

    return cmocka_run_group_tests(tests, set_key, NULL);
}
