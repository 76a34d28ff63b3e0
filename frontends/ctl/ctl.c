/*
 * ctl.c: answers one admin request: reads the JSON, finds the verb in the table, writes the answer.
 *
 * It must never put a password or a secret into an answer, an error or the log. The request's strings are wiped before
 * their memory is given back. Thread: the worker's. The answer's done callback runs from the loop, never inside
 * tb_ctl_run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "frontends/config/config.h"
#include "frontends/ctl/verbs.h"

enum { REPLY_MAX = 256 << 20 };

static const struct ctl_verb verbs[] = {
    {"account add", ctl_account_add},
    {"account delete", ctl_account_delete},
    {"account deleted", ctl_account_deleted},
    {"account import", ctl_account_import},
    {"account list", ctl_account_list},
    {"account passwd", ctl_account_passwd},
    {"account undelete", ctl_account_undelete},
    {"backup start", ctl_backup_start},
    {"backup stop", ctl_backup_stop},
    {"backup wait", ctl_backup_wait},
    {"dict list", ctl_dict_list},
    {"dict train", ctl_dict_train},
    {"gc", ctl_gc},
    {"mailbox acl", ctl_mailbox_acl},
    {"mailbox create", ctl_mailbox_create},
    {"mailbox delete", ctl_mailbox_delete},
    {"mailbox list", ctl_mailbox_list},
    {"mailbox retention", ctl_mailbox_retention},
    {"quota", ctl_quota},
    {"scrub", ctl_scrub},
    {"stat", ctl_stat},
    {"undelete", ctl_undelete},
    {"undelete list", ctl_undelete_list},
};

/* What a result code means to a script: one table. */
static const int exits[] = {
    [TB_OK] = EX_OK,         [TB_NOTFOUND] = EX_NOUSER, [TB_EXISTS] = EX_CANTCREAT,   [TB_INVALID] = EX_DATAERR,
    [TB_LIMIT] = EX_DATAERR, [TB_BUSY] = EX_TEMPFAIL,   [TB_CONFLICT] = EX_TEMPFAIL,  [TB_NOSPACE] = EX_TEMPFAIL,
    [TB_IO] = EX_IOERR,      [TB_CORRUPT] = EX_IOERR,   [TB_CANCELLED] = EX_TEMPFAIL, [TB_OVERQUOTA] = EX_DATAERR,
};

static int put_json(const char *text, size_t len, void *user)
{
    struct tb_buf *b = user;

    tb_buf_put(b, text, len);
    return b->failed ? -1 : 0;
}

/* wipe: no password stays in freed memory. */
static void wipe(json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;

    if (json_is_string(v))
        explicit_bzero((char *)(uintptr_t)json_string_value(v), json_string_length(v));
    json_array_foreach (v, i, item)
        if (json_is_string(item))
            wipe(item);
    json_object_foreach (v, key, item)
        if (json_is_string(item) || json_is_array(item))
            wipe(item);
}

/* finish: write the answer and hand the request back. Takes answer over. */
static void finish(struct ctl *x, json_t *answer)
{
    struct tb_ctl_request *r = x->request;
    struct tb_io *io = tb_worker_io(x->worker);

    tb_buf_init(&r->reply, REPLY_MAX);
    if (!answer || json_dump_callback(answer, put_json, &r->reply, JSON_COMPACT) != 0 || r->reply.failed) {
        tb_buf_free(&r->reply);
        tb_buf_init(&r->reply, REPLY_MAX);
        tb_buf_str(&r->reply, "{\"ok\":false,\"exit\":71,\"error\":\"out of memory for the answer\"}");
    }
    tb_buf_char(&r->reply, '\n');
    json_decref(answer);
    if (x->drop)
        x->drop(x);
    free(x->data);
    wipe(x->args);
    json_decref(x->root);
    free(x);
    r->state = NULL;
    r->op.rc = TB_OK;
    tb_io_post(io, io, &r->op);
}

static void fail(struct ctl *x, int code, const char *text)
{
    finish(x, json_pack("{s:b, s:i, s:s}", "ok", 0, "exit", code, "error", text));
}

void ctl_ok(struct ctl *x, json_t *result)
{
    finish(x, result ? json_pack("{s:b, s:o}", "ok", 1, "result", result) : NULL);
}

void ctl_fail(struct ctl *x, enum tb_rc rc, const char *what, const char *why)
{
    char text[600];
    json_t *probe;

    snprintf(text, sizeof(text), "%.400s: %s", what, why ? why : tb_rc_text(rc));
    probe = json_string(text);
    for (unsigned char *p = (unsigned char *)text; !probe && *p; p++)
        if (*p >= 0x7f) /* a sequence that was cut would not be JSON */
            *p = '?';
    json_decref(probe);
    fail(x, exits[rc], text);
}

void ctl_usage(struct ctl *x, const char *why)
{
    fail(x, EX_USAGE, why);
}

void *ctl_data(struct ctl *x, size_t size)
{
    void *data = calloc(1, size);

    x->data = data;
    if (!data)
        finish(x, NULL);
    return data;
}

struct tb_slice ctl_text(struct ctl *x, const char *key)
{
    json_t *v = json_object_get(x->args, key);

    return tb_slice(json_string_value(v), json_string_length(v));
}

struct tb_slice ctl_name(struct ctl *x, struct tb_slice name)
{
    struct tb_slice domain = tb_slice_str(x->cfg->default_domain);

    if (name.len > domain.len + 1 && name.ptr[name.len - domain.len - 1] == '@' &&
        tb_slice_ieq(tb_slice(name.ptr + name.len - domain.len, domain.len), domain))
        name.len -= domain.len + 1;
    return name;
}

void tb_ctl_run(struct tb_worker *w, const struct tb_config *cfg, struct tb_slice line, struct tb_ctl_request *r)
{
    struct ctl *x = calloc(1, sizeof(*x));
    struct tb_io *io = tb_worker_io(w);
    const char *name;
    json_error_t error;

    tb_buf_init(&r->reply, REPLY_MAX);
    r->state = x;
    if (!x) {
        tb_buf_str(&r->reply, "{\"ok\":false,\"exit\":71,\"error\":\"out of memory\"}\n");
        r->op.rc = TB_OK;
        tb_io_post(io, io, &r->op);
        return;
    }
    *x = (struct ctl){.request = r, .worker = w, .cfg = cfg};
    x->root = json_loadb(line.ptr ? line.ptr : "", line.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    x->args = json_object_get(x->root, "args");
    name = json_string_value(json_object_get(x->root, "verb"));
    if (!x->root) {
        ctl_usage(x, "the request is not JSON");
        return;
    }
    if (!name || (x->args && !json_is_object(x->args))) {
        ctl_usage(x, "the request has no verb, or its args are no object");
        return;
    }
    for (size_t i = 0; i < TB_ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            verbs[i].run(x);
            return;
        }
    }
    ctl_usage(x, "unknown verb");
}
