/*
 * throttle.c: so many failed logins a minute, for each network (IPv4 /24, IPv6 /64) and for each account.
 *
 * Loopback and UNIX sockets are no network: behind them is a proxy or webmail that speaks for many. In a network where
 * an account's owner has logged in lately, strangers' failures elsewhere do not lock the owner out.
 *
 * Memory is fixed: four-way tables of debts. A debt is a point in time: each failure moves it on by its price, it is
 * paid by waiting, and who could not owe one more within a minute is blocked. The price is two minutes over the limit:
 * half the limit at once and the other half while the minute passes, so that no minute has more. A full set forgets its
 * smallest debt. Keys are hashed with a secret, so that nobody can aim at a set. Process-wide, under one mutex, held
 * for a few dozen instructions.
 */
#include "frontends/auth/throttle.h"

#include <arpa/inet.h>
#include <pthread.h>

enum { WAYS = 4, SETS = 2048, KEY_BYTES_MAX = 320 };

static const uint64_t second_ns = 1000000000u;
#define DEBT_NS (60 * second_ns)
#define OWNER_NS (7 * 86400 * second_ns)

struct debt {
    uint64_t hash; /* 0: free */
    uint64_t until_ns;
};
struct table {
    struct debt set[SETS][WAYS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table failures, owners;
static uint8_t secret[16];
static bool secret_set;

void tb_throttle_key(const uint8_t key[16])
{
    (void)pthread_mutex_lock(&lock); /* a plain mutex of our own cannot fail */
    if (!secret_set)
        memcpy(secret, key, sizeof(secret));
    secret_set = true;
    (void)pthread_mutex_unlock(&lock);
}

/* The network a peer is in; empty for loopback, UNIX sockets and what is no address. Returns its bytes. */
static size_t network(const char *peer, uint8_t out[8])
{
    char text[INET6_ADDRSTRLEN];
    size_t len = strcspn(peer, "%"); /* without a scope */
    uint8_t six[16], *four = out;
    bool is_four;

    if (len >= sizeof(text))
        return 0;
    memcpy(text, peer, len);
    text[len] = '\0';
    is_four = inet_pton(AF_INET, text, four) == 1;
    if (!is_four) {
        if (inet_pton(AF_INET6, text, six) != 1 || memcmp(six, &in6addr_loopback, sizeof(six)) == 0)
            return 0;
        if (!IN6_IS_ADDR_V4MAPPED((struct in6_addr *)(void *)six)) {
            memcpy(out, six, 8);
            return 8;
        }
        memcpy(four, six + 12, 4);
    }
    return four[0] == 127 ? 0 : 3;
}

static uint64_t hash_of(char kind, const uint8_t *net, size_t net_len, struct tb_slice account)
{
    uint8_t key[KEY_BYTES_MAX] = {(uint8_t)kind, (uint8_t)net_len};
    uint64_t hash;

    if (account.len > KEY_BYTES_MAX - 10)
        account.len = KEY_BYTES_MAX - 10;
    if (net_len > 0)
        memcpy(key + 2, net, net_len);
    for (size_t i = 0; i < account.len; i++) {
        char c = account.ptr[i];

        key[10 + i] = (uint8_t)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    hash = tb_siphash(secret, key, 10 + account.len);
    return hash ? hash : 1;
}

static uint64_t owed(const struct table *t, uint64_t hash, uint64_t now_ns)
{
    const struct debt *set = t->set[hash % SETS];

    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].hash == hash)
            return set[i].until_ns > now_ns ? set[i].until_ns - now_ns : 0;
    }
    return 0;
}

/* Move a debt on: by add_ns from what it is, at most to most_ns from now. */
static void owe(struct table *t, uint64_t hash, uint64_t now_ns, uint64_t add_ns, uint64_t most_ns)
{
    struct debt *set = t->set[hash % SETS];
    struct debt *d = &set[0];

    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].hash == hash) {
            d = &set[i];
            break;
        }
        if (set[i].until_ns < d->until_ns)
            d = &set[i];
    }
    if (d->hash != hash || d->until_ns < now_ns)
        d->until_ns = now_ns;
    d->hash = hash;
    d->until_ns += add_ns;
    if (d->until_ns > now_ns + most_ns)
        d->until_ns = now_ns + most_ns;
}

/* What one failure costs. */
static uint64_t price(uint32_t limit)
{
    return limit < 2 ? DEBT_NS : (2 * DEBT_NS + limit - 1) / limit;
}

/* Does it owe so much that one failure more would be one too many? */
static bool full(uint32_t limit, uint64_t hash, uint64_t now_ns)
{
    return limit > 0 && owed(&failures, hash, now_ns) > DEBT_NS - price(limit);
}

static void fail(uint32_t limit, uint64_t hash, uint64_t now_ns)
{
    if (limit > 0)
        owe(&failures, hash, now_ns, price(limit), DEBT_NS);
}

bool tb_throttle_blocked(const struct tb_throttle_limits *limits, const char *peer, struct tb_slice account,
                         uint64_t now_ns)
{
    uint8_t net[8];
    size_t net_len = network(peer, net);
    bool blocked = false;

    (void)pthread_mutex_lock(&lock);
    if (net_len > 0)
        blocked = full(limits->network, hash_of('n', net, net_len, TB_SLICE("")), now_ns);
    if (!blocked && (net_len == 0 || owed(&owners, hash_of('o', net, net_len, account), now_ns) == 0))
        blocked = full(limits->account, hash_of('a', NULL, 0, account), now_ns);
    (void)pthread_mutex_unlock(&lock);
    return blocked;
}

void tb_throttle_failed(const struct tb_throttle_limits *limits, const char *peer, struct tb_slice account,
                        uint64_t now_ns)
{
    uint8_t net[8];
    size_t net_len = network(peer, net);

    (void)pthread_mutex_lock(&lock);
    if (net_len > 0)
        fail(limits->network, hash_of('n', net, net_len, TB_SLICE("")), now_ns);
    fail(limits->account, hash_of('a', NULL, 0, account), now_ns);
    (void)pthread_mutex_unlock(&lock);
}

void tb_throttle_passed(const char *peer, struct tb_slice account, uint64_t now_ns)
{
    uint8_t net[8];
    size_t net_len = network(peer, net);

    if (net_len == 0)
        return;
    (void)pthread_mutex_lock(&lock);
    owe(&owners, hash_of('o', net, net_len, account), now_ns, OWNER_NS, OWNER_NS);
    (void)pthread_mutex_unlock(&lock);
}
