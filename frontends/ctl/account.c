/*
 * account.c: the verbs about one account, and the list of accounts.
 *
 * It must never keep a password longer than its hashing takes, and never answer with a secret. Hashing is slow on
 * purpose and runs on a helper thread. Thread: the worker's, but for hash_work.
 */
#include <stdio.h>
#include <stdlib.h>

#include "frontends/auth/auth.h"
#include "frontends/config/config.h"
#include "frontends/ctl/verbs.h"

enum { LIST_MAX = 10000 };

struct change {
    struct ctl *x;
    struct tb_op op;
    bool create;
    bool hashed;
    size_t name_len, password_len;
    uint8_t salt[16];
    char name[TB_NAME_MAX + 1];
    char scheme[32];
    char password[TB_PASSWORD_MAX + 1];
    char secret[TB_SECRET_MAX + 1];
};

static void change_drop(struct ctl *x)
{
    explicit_bzero(x->data, sizeof(struct change));
}

static void answer_account(struct ctl *x, const char *name)
{
    char lower[TB_NAME_MAX + 1];
    size_t i = 0;

    for (; name[i]; i++)
        lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
    lower[i] = '\0';
    ctl_ok(x, json_pack("{s:s}", "account", lower));
}

static void change_stored(struct tb_op *op)
{
    struct change *ch = op->user;
    struct ctl *x = ch->x;
    char name[TB_NAME_MAX + 1];

    memcpy(name, ch->name, sizeof(name));
    if (op->rc == TB_OK)
        answer_account(x, name);
    else
        ctl_fail(x, op->rc, name, op->rc == TB_INVALID ? "not a name for an account" : NULL);
}

static void hash_work(struct tb_op *op)
{
    struct change *ch = op->user;

    ch->hashed = tb_password_hash(ch->scheme, tb_slice(ch->password, ch->password_len), ch->salt, ch->secret) == TB_OK;
    explicit_bzero(ch->password, sizeof(ch->password));
}

static void hash_done(struct tb_op *op)
{
    struct change *ch = op->user;
    struct tb_slice name = tb_slice(ch->name, ch->name_len), secret;

    if (!ch->hashed) {
        ctl_usage(ch->x, "the scheme is not known, or the password cannot be stored in it");
        return;
    }
    secret = tb_slice_str(ch->secret);
    ch->op = (struct tb_op){.done = change_stored, .user = ch};
    if (ch->create)
        tb_account_create(ch->x->worker, name, secret, &ch->op);
    else
        tb_account_secret(ch->x->worker, name, secret, &ch->op);
}

/* change_start: check the arguments, hash the password on a helper thread, then create the account or replace its
 * secret. */
static void change_start(struct ctl *x, bool create)
{
    struct tb_slice name = ctl_name(x, ctl_text(x, "name"));
    struct tb_slice password = ctl_text(x, "password"), scheme = ctl_text(x, "scheme");
    struct change *ch;

    if (name.len == 0 || name.len > TB_NAME_MAX || memchr(name.ptr, 0, name.len)) {
        ctl_usage(x, "args.name: 1 to 255 bytes are needed");
        return;
    }
    if (password.len == 0 || password.len > TB_PASSWORD_MAX || memchr(password.ptr, 0, password.len)) {
        ctl_usage(x, "args.password: 1 to 1024 bytes are needed, none of them NUL");
        return;
    }
    if (scheme.len >= sizeof(ch->scheme)) {
        ctl_usage(x, "args.scheme: not a scheme");
        return;
    }
    ch = ctl_data(x, sizeof(*ch));
    if (!ch)
        return;
    x->drop = change_drop;
    ch->x = x;
    ch->create = create;
    ch->name_len = name.len;
    ch->password_len = password.len;
    memcpy(ch->name, name.ptr, name.len);
    memcpy(ch->password, password.ptr, password.len);
    if (scheme.len)
        memcpy(ch->scheme, scheme.ptr, scheme.len);
    else
        (void)snprintf(ch->scheme, sizeof(ch->scheme), "%s", x->cfg->password_scheme);
    tb_io_random(tb_worker_io(x->worker), ch->salt, sizeof(ch->salt));
    ch->op = (struct tb_op){.done = hash_done, .user = ch};
    tb_io_offload(tb_worker_io(x->worker), &ch->op, hash_work);
}

void ctl_account_add(struct ctl *x)
{
    change_start(x, true);
}

void ctl_account_passwd(struct ctl *x)
{
    change_start(x, false);
}

void ctl_account_delete(struct ctl *x)
{
    struct tb_slice name = ctl_name(x, ctl_text(x, "name"));
    struct change *ch;

    if (name.len == 0 || name.len > TB_NAME_MAX || memchr(name.ptr, 0, name.len)) {
        ctl_usage(x, "args.name: 1 to 255 bytes are needed");
        return;
    }
    ch = ctl_data(x, sizeof(*ch));
    if (!ch)
        return;
    ch->x = x;
    memcpy(ch->name, name.ptr, name.len);
    ch->op = (struct tb_op){.done = change_stored, .user = ch};
    tb_account_delete(x->worker, name, &ch->op);
}

/* scheme_of: "ARGON2ID" of "{ARGON2ID}hash"; "" when there is no login. */
static void scheme_of(const char *secret, char scheme[64])
{
    size_t len = secret[0] == '{' ? strcspn(secret + 1, "}") : 0;

    if (len > 63)
        len = 63;
    memcpy(scheme, secret[0] == '{' ? secret + 1 : "", len);
    scheme[len] = '\0';
}

/* Pages of at most `limit` accounts in name order; "next" is what to give as "after" for the following page. */
void ctl_account_list(struct ctl *x)
{
    struct tb_slice after = ctl_text(x, "after");
    json_int_t limit = json_integer_value(json_object_get(x->args, "limit"));
    struct tb_store *store = tb_worker_store(x->worker);
    json_t *list = json_array();
    struct tb_identity found;
    char last[TB_NAME_MAX + 1] = "", scheme[64];
    bool more = true;

    if (after.len > TB_NAME_MAX) {
        json_decref(list);
        ctl_usage(x, "args.after: not a name");
        return;
    }
    if (after.len)
        memcpy(last, after.ptr, after.len);
    if (limit < 1 || limit > LIST_MAX)
        limit = LIST_MAX;
    while (limit-- > 0) {
        more = tb_directory_next(store, tb_slice_str(last), &found) == TB_OK;
        if (!more)
            break;
        memcpy(last, found.name, sizeof(last));
        scheme_of(found.secret, scheme);
        json_array_append_new(
            list, json_pack("{s:s, s:i, s:s}", "account", found.name, "shard", (int)found.id.shard, "scheme", scheme));
        explicit_bzero(found.secret, sizeof(found.secret));
    }
    ctl_ok(x, more ? json_pack("{s:o, s:s}", "accounts", list, "next", last) : json_pack("{s:o}", "accounts", list));
}
