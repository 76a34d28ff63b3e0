/*
 * import.c: many accounts at once from lines of a Dovecot passwd-file. Up to 64 are on their way at any time, so that
 * one log write carries many of them. An account that exists gets the new secret; its mail is not touched. With a
 * scheme, passwords in clear are stored in that scheme, hashed on helper threads; what is hashed already stays so.
 *
 * It must never stop at a bad line: each is reported with its number. Thread: the worker's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "frontends/auth/auth.h"
#include "frontends/config/config.h"
#include "frontends/ctl/verbs.h"

enum { IN_FLIGHT = 64 };

struct slot {
    struct tb_op op;
    struct import *import; /* borrowed */
    bool busy, updating, hashed;
    size_t line;
    struct tb_slice name; /* borrowed from the request */
    char secret[TB_SECRET_MAX + 1];
    uint8_t salt[16];
};
struct import {
    struct ctl *x;
    json_t *lines;   /* borrowed from the request */
    json_t *failed;  /* owned until the answer */
    char scheme[32]; /* "": passwords stay as they are */
    size_t next, first_line;
    unsigned in_flight, added, updated, skipped;
    struct slot slot[IN_FLIGHT];
};

const char *ctl_passwd_line(struct tb_slice line, struct tb_slice *name, char secret[TB_SECRET_MAX + 1])
{
    const char *colon = line.len ? memchr(line.ptr, ':', line.len) : NULL, *end;
    struct tb_slice hash = {0};
    const char *prefix = "";

    *name = colon ? tb_slice(line.ptr, (size_t)(colon - line.ptr)) : line;
    if (colon) {
        hash = tb_slice_sub(line, name->len + 1, line.len);
        end = hash.len ? memchr(hash.ptr, ':', hash.len) : NULL;
        if (end)
            hash.len = (size_t)(end - hash.ptr);
    }
    if (name->len == 0 || name->len > TB_NAME_MAX)
        return "the name is empty or longer than 255 bytes";
    if (hash.len && (hash.ptr[0] == '*' || hash.ptr[0] == '!'))
        hash.len = 0;
    if (hash.len && hash.ptr[0] != '{')
        prefix = "{CRYPT}";
    if (hash.len + strlen(prefix) > TB_SECRET_MAX)
        return "the hash is longer than 255 bytes";
    if (hash.len && memchr(hash.ptr, 0, hash.len))
        return "there is a NUL in the hash";
    snprintf(secret, TB_SECRET_MAX + 1, "%s%.*s", prefix, (int)hash.len, hash.len ? hash.ptr : "");
    if (secret[0] && !tb_secret_known(secret))
        return "the password scheme is not known";
    return NULL;
}

static void refuse(struct import *im, size_t line, const char *why)
{
    json_array_append_new(im->failed,
                          json_pack("{s:I, s:s}", "line", (json_int_t)im->first_line + (json_int_t)line, "error", why));
}

static void fill(struct import *im);

static void slot_free(struct slot *s)
{
    explicit_bzero(s->secret, sizeof(s->secret));
    s->busy = false;
    s->import->in_flight--;
}

static void slot_done(struct tb_op *op)
{
    struct slot *s = op->user;
    struct import *im = s->import;

    if (op->rc == TB_EXISTS && !s->updating) {
        s->updating = true;
        s->op = (struct tb_op){.done = slot_done, .user = s};
        tb_account_secret(im->x->worker, s->name, tb_slice_str(s->secret), &s->op);
        return;
    }
    if (op->rc != TB_OK)
        refuse(im, s->line, op->rc == TB_INVALID ? "not a name for an account" : tb_rc_text(op->rc));
    else if (s->updating)
        im->updated++;
    else
        im->added++;
    slot_free(s);
    fill(im);
}

static void store(struct slot *s)
{
    s->op = (struct tb_op){.done = slot_done, .user = s};
    tb_account_create(s->import->x->worker, s->name, tb_slice_str(s->secret), &s->op);
}

static void hash_work(struct tb_op *op)
{
    struct slot *s = op->user;
    char fresh[TB_SECRET_MAX + 1] = {0};
    struct tb_slice password;

    s->hashed = tb_secret_clear(s->secret, &password) &&
                tb_password_hash(s->import->scheme, password, s->salt, fresh) == TB_OK;
    memcpy(s->secret, fresh, sizeof(fresh));
    explicit_bzero(fresh, sizeof(fresh));
}

static void hash_done(struct tb_op *op)
{
    struct slot *s = op->user;
    struct import *im = s->import;

    if (s->hashed) {
        store(s);
        return;
    }
    refuse(im, s->line, "the scheme is not known, or the password cannot be stored in it");
    slot_free(s);
    fill(im);
}

/* start: line n of the request; false if nothing was set in motion. */
static bool start(struct import *im, size_t n)
{
    json_t *v = json_array_get(im->lines, n);
    struct tb_slice line = tb_slice_trim(tb_slice(json_string_value(v), json_string_length(v)));
    struct slot *s = im->slot;
    struct tb_slice password;
    const char *why;

    if (!json_is_string(v)) {
        refuse(im, n, "the line is not UTF-8");
        return false;
    }
    if (line.len == 0 || line.ptr[0] == '#') {
        im->skipped++;
        return false;
    }
    while (s->busy)
        s++;
    why = ctl_passwd_line(line, &s->name, s->secret);
    if (why) {
        refuse(im, n, why);
        return false;
    }
    s->name = ctl_name(im->x, s->name);
    s->line = n;
    s->import = im;
    s->busy = true;
    s->updating = false;
    im->in_flight++;
    if (!im->scheme[0] || !tb_secret_clear(s->secret, &password)) {
        store(s);
        return true;
    }
    tb_io_random(tb_worker_io(im->x->worker), s->salt, sizeof(s->salt));
    s->op = (struct tb_op){.done = hash_done, .user = s};
    tb_io_offload(tb_worker_io(im->x->worker), &s->op, hash_work);
    return true;
}

/* fill: keep as many lines on their way as there are slots; answer when the last is done. */
static void fill(struct import *im)
{
    size_t n = json_array_size(im->lines);
    json_t *failed;

    while (im->in_flight < IN_FLIGHT && im->next < n)
        (void)start(im, im->next++); /* a line that did not start is counted by start itself */
    if (im->in_flight)
        return;
    failed = im->failed;
    im->failed = NULL;
    ctl_ok(im->x, json_pack("{s:i, s:i, s:i, s:o}", "added", (int)im->added, "updated", (int)im->updated, "skipped",
                            (int)im->skipped, "failed", failed));
}

static void import_drop(struct ctl *x)
{
    struct import *im = x->data;

    json_decref(im->failed);
}

void ctl_account_import(struct ctl *x)
{
    json_t *lines = json_object_get(x->args, "lines");
    json_int_t first = json_integer_value(json_object_get(x->args, "first_line"));
    struct tb_slice scheme = ctl_text(x, "scheme");
    struct import *im;

    if (!json_is_array(lines)) {
        ctl_usage(x, "args.lines: an array of lines is needed");
        return;
    }
    if (scheme.len >= sizeof(im->scheme)) {
        ctl_usage(x, "args.scheme: not a scheme");
        return;
    }
    im = ctl_data(x, sizeof(*im));
    if (!im)
        return;
    if (scheme.len > 0)
        memcpy(im->scheme, scheme.ptr, scheme.len);
    x->drop = import_drop;
    im->x = x;
    im->lines = lines;
    im->first_line = first > 0 ? (size_t)first : 1;
    im->failed = json_array();
    fill(im);
}
