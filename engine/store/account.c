/*
 * account.c: accounts made, changed, deleted (across shard 0 and the account's own), and the handles sessions hold.
 *
 * Creating: number and name reserved in shard 0 -> ACCT and the first mailboxes in the account's shard -> PLACE in
 * shard 0; the name is found only when PLACE is durable. A crash in between leaves an account that no name leads to,
 * and its number is given again, to an ACCT record that replaces it. Thread: steps run on the owners by tb_call; a
 * request's done on the asking worker.
 */
#include <tambo/trash.h>

#include "engine/store/shard.h"

#include <stdlib.h>

/* ---- handles ---- */

enum tb_rc tb_account_open(struct tb_worker *w, struct tb_account_id id, struct tb_account **out)
{
    struct tb_shard *s = tb_shard_of(w, id.shard);
    struct tb_disk_acct row;
    TB_ASSERT(s != NULL);
    if (s->failed)
        return TB_IO;
    struct tb_account *a = tb_shard_account(s, id.acct);
    if (a == NULL) {
        if (!tb_acct_get(s->ix, id.acct, &row) || row.flags & TB_ACCT_DELETED)
            return TB_NOTFOUND;
        a = calloc(1, sizeof(*a));
        if (a == NULL)
            return TB_LIMIT;
        a->shard = s;
        a->acct = id.acct;
        a->position = tb_log_end(s->log);
        a->next = s->bucket[id.acct % TB_ACCOUNT_BUCKETS];
        s->bucket[id.acct % TB_ACCOUNT_BUCKETS] = a;
        s->accounts_open++;
    }
    if (a->deleted)
        return TB_NOTFOUND;
    a->refs++;
    *out = a;
    return TB_OK;
}

void tb_account_close(struct tb_account *a)
{
    if (a == NULL || --a->refs > 0)
        return;
    struct tb_account **at = &a->shard->bucket[a->acct % TB_ACCOUNT_BUCKETS];
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    a->shard->accounts_open--;
    free(a);
}

struct tb_slice tb_account_name(struct tb_account *a, struct tb_arena *arena)
{
    struct tb_slice v;
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, a->acct);
    if (!tb_index_get(a->shard->ix, TB_DB_ACCT, tb_key_slice(&k), &v) || v.len < sizeof(struct tb_disk_acct))
        return tb_slice("", 0);
    return tb_arena_copy(arena, tb_slice_sub(v, sizeof(struct tb_disk_acct), SIZE_MAX));
}

struct tb_worker *tb_account_worker(struct tb_account *a)
{
    return a->shard->worker;
}

uint32_t tb_account_shard(const struct tb_account *a)
{
    return a->shard->number;
}

uint64_t tb_account_position(const struct tb_account *a)
{
    return a->position;
}

/* ---- requests ---- */

struct tb_creating {
    struct tb_creating *next;
    char name[TB_NAME_MAX + 1];
};

struct request { /* freed when its op.done has been called */
    struct tb_call call;
    struct tb_worker *worker;
    struct tb_op *op; /* the asker's */
    struct tb_creating creating;
    struct tb_identity id;
    int64_t until; /* undelete */
    bool reserved;
};

static bool name_valid(struct tb_slice name)
{
    if (name.len == 0 || name.len > TB_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c <= 0x20 || c == 0x7f || c == '/' || c == ':' || c == '"' || c == '\\')
            return false;
    }
    return !tb_slice_eq(name, TB_SLICE(".")) && !tb_slice_eq(name, TB_SLICE(".."));
}

static struct request *request_new(struct tb_worker *w, struct tb_slice name, struct tb_slice secret, struct tb_op *op)
{
    struct request *r = name_valid(name) && secret.len <= TB_SECRET_MAX ? calloc(1, sizeof(*r)) : NULL;
    if (r == NULL) {
        tb_worker_ready(w, op, name_valid(name) && secret.len <= TB_SECRET_MAX ? TB_LIMIT : TB_INVALID);
        return NULL;
    }
    r->worker = w;
    r->op = op;
    for (size_t i = 0; i < name.len; i++)
        r->id.name[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + 32) : name.ptr[i];
    if (secret.len > 0)
        memcpy(r->id.secret, secret.ptr, secret.len);
    r->call.user = r;
    return r;
}

static void request_end(struct request *r, enum tb_rc rc)
{
    tb_worker_ready(r->worker, r->op, rc);
    free(r);
}

static void go(struct request *r, uint32_t shard, void (*run)(struct tb_call *call, struct tb_worker *owner),
               void (*done)(struct tb_op *op))
{
    r->call.run = run;
    r->call.op = (struct tb_op){.done = done, .user = r};
    tb_call(r->worker, shard, &r->call);
}

static void log_place(struct tb_shard *s, const struct tb_identity *id)
{
    struct tb_pay_place p = {
        .shard = id->id.shard, .name_len = (uint16_t)strlen(id->name), .secret_len = (uint16_t)strlen(id->secret)};
    tb_shard_record(s, TB_REC_PLACE, 0, id->id.acct, tb_slice(&p, sizeof(p)), tb_slice_str(id->name),
                    tb_slice_str(id->secret));
}

/* ---- create ---- */

static void create_reserve(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_store *st = owner->store;
    struct tb_identity other;
    for (const struct tb_creating *c = st->creating; c != NULL; c = c->next)
        if (strcmp(c->name, r->id.name) == 0)
            call->rc = TB_EXISTS;
    if (tb_directory_find(st, tb_slice_str(r->id.name), &other) == TB_OK)
        call->rc = TB_EXISTS;
    if (call->rc != TB_OK)
        return;
    if (st->next_acct < st->shard[0]->x.state.next_acct)
        st->next_acct = st->shard[0]->x.state.next_acct;
    r->id.id.acct = st->next_acct++;
    r->id.id.shard = (uint32_t)(tb_siphash(st->super.uuid, r->id.name, strlen(r->id.name)) % st->super.shards);
    memcpy(r->creating.name, r->id.name, sizeof(r->creating.name));
    r->creating.next = st->creating;
    st->creating = &r->creating;
    r->reserved = true;
}

static void create_forget(struct tb_store *st, struct request *r)
{
    struct tb_creating **at = &st->creating;
    while (*at != NULL && *at != &r->creating)
        at = &(*at)->next;
    if (*at != NULL)
        *at = r->creating.next;
}

static bool is_reserved(const struct tb_store *st, const struct request *r)
{
    const struct tb_creating *c = st->creating;
    while (c != NULL && c != &r->creating)
        c = c->next;
    return c != NULL;
}

static void create_release(struct tb_call *call, struct tb_worker *owner)
{
    create_forget(owner->store, call->user);
}

static const struct {
    const char *name;
    uint16_t special;
} first_mailboxes[] = {
    {"INBOX", 0},
    {"Archive", TB_SPECIAL_ARCHIVE},
    {"Drafts", TB_SPECIAL_DRAFTS},
    {"Junk", TB_SPECIAL_JUNK},
    {"Sent", TB_SPECIAL_SENT},
    {"Trash", TB_SPECIAL_TRASH},
};

static void create_mailboxes(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_shard *s = tb_shard_of(owner, r->id.id.shard);
    uint32_t acct = r->id.id.acct;
    struct tb_slice none = tb_slice(NULL, 0);
    call->rc = tb_shard_admit(s, 1024 + TB_NAME_MAX, 1 + 2 * (uint32_t)TB_ARRAY_LEN(first_mailboxes), ADMIT_CALL);
    if (call->rc != TB_OK)
        return;
    struct tb_pay_acct a = {.modseq = 1};
    tb_shard_record(s, TB_REC_ACCT, 0, acct, tb_slice(&a, sizeof(a)), tb_slice_str(r->id.name), none);
    int64_t now = tb_io_wall_s(owner->io);
    uint32_t uidvalidity = now > 0 && now < UINT32_MAX ? (uint32_t)now : 1;
    if (uidvalidity <= s->x.state.uidvalidity_max)
        uidvalidity = s->x.state.uidvalidity_max + 1;
    for (uint32_t i = 0; i < TB_ARRAY_LEN(first_mailboxes); i++) {
        struct tb_slice name = tb_slice_str(first_mailboxes[i].name);
        struct tb_pay_mbox m = {.mbox = TB_MBOX_INBOX + i,
                                .uidvalidity = uidvalidity,
                                .special = first_mailboxes[i].special,
                                .mailboxid = (uint64_t)acct << 32 | (TB_MBOX_INBOX + i),
                                .modseq = 2 + i};
        tb_shard_record(s, TB_REC_MBOX, 0, acct, tb_slice(&m, sizeof(m)), name, none);
        tb_shard_record(s, TB_REC_SUB, TB_SUB_ON, acct, name, none, none);
    }
}

static void create_place(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_shard *s = owner->store->shard[0];
    if (!is_reserved(owner->store, r)) { /* shard 0 has been rebuilt meanwhile: the name may be another's by now */
        call->rc = TB_IO;
        return;
    }
    call->rc = tb_shard_admit(s, sizeof(struct tb_pay_place) + TB_NAME_MAX + TB_SECRET_MAX, 1, ADMIT_CALL);
    if (call->rc == TB_OK)
        call->rc = tb_directory_reserve(owner->store);
    if (call->rc == TB_OK)
        log_place(s, &r->id);
}

static void created_released(struct tb_op *op)
{
    struct request *r = op->user;
    request_end(r, r->op->rc);
}

static void release(struct request *r, enum tb_rc rc)
{
    r->op->rc = rc;
    if (!r->reserved) {
        request_end(r, rc);
        return;
    }
    go(r, 0, create_release, created_released);
}

static void created_place(struct tb_op *op)
{
    struct request *r = op->user;
    if (r->call.rc == TB_OK)
        tb_directory_set(r->worker->store, &r->id); /* durable: from now on the name is found */
    release(r, r->call.rc);
}

static void created_mailboxes(struct tb_op *op)
{
    struct request *r = op->user;
    if (r->call.rc != TB_OK)
        release(r, r->call.rc);
    else
        go(r, 0, create_place, created_place);
}

static void created_reserve(struct tb_op *op)
{
    struct request *r = op->user;
    if (r->call.rc != TB_OK)
        release(r, r->call.rc);
    else
        go(r, r->id.id.shard, create_mailboxes, created_mailboxes);
}

void tb_account_create(struct tb_worker *w, struct tb_slice name, struct tb_slice secret, struct tb_op *op)
{
    struct request *r = request_new(w, name, secret, op);
    if (r != NULL)
        go(r, 0, create_reserve, created_reserve);
}

/* ---- secret ---- */

static void secret_place(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_identity id;
    call->rc = tb_directory_find(owner->store, tb_slice_str(r->id.name), &id);
    if (call->rc != TB_OK)
        return;
    memcpy(id.secret, r->id.secret, sizeof(id.secret));
    call->rc = tb_shard_admit(owner->store->shard[0], sizeof(struct tb_pay_place) + TB_NAME_MAX + TB_SECRET_MAX, 1,
                              ADMIT_SMALL);
    if (call->rc != TB_OK)
        return;
    log_place(owner->store->shard[0], &id);
    tb_directory_set(owner->store, &id);
}

static void simple_done(struct tb_op *op)
{
    struct request *r = op->user;
    request_end(r, r->call.rc);
}

void tb_account_secret(struct tb_worker *w, struct tb_slice name, struct tb_slice secret, struct tb_op *op)
{
    struct request *r = request_new(w, name, secret, op);
    if (r != NULL)
        go(r, 0, secret_place, simple_done);
}

/* ---- delete ---- */

static void delete_place(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_slice none = tb_slice(NULL, 0);
    call->rc = tb_directory_find(owner->store, tb_slice_str(r->id.name), &r->id);
    if (call->rc == TB_OK)
        call->rc = tb_shard_admit(owner->store->shard[0], sizeof(struct tb_pay_unplace), 1, ADMIT_SMALL);
    if (call->rc != TB_OK)
        return;
    struct tb_pay_unplace u = {.due = tb_due(owner->store->shard[0]), .when = tb_io_wall_s(owner->io)};
    tb_shard_record(owner->store->shard[0], TB_REC_UNPLACE, 0, r->id.id.acct, tb_slice(&u, sizeof(u)), none, none);
    tb_directory_remove(owner->store, tb_slice_str(r->id.name));
}

static void delete_mail(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_shard *s = tb_shard_of(owner, r->id.id.shard);
    struct tb_disk_acct row;
    struct tb_slice none = tb_slice(NULL, 0);
    if (!tb_acct_get(s->ix, r->id.id.acct, &row) || row.flags & TB_ACCT_DELETED)
        return;
    call->rc = tb_shard_admit(s, sizeof(struct tb_pay_acct_delete), 1, ADMIT_SMALL);
    if (call->rc != TB_OK)
        return;
    struct tb_pay_acct_delete d = {.due = tb_due(s), .when = tb_io_wall_s(owner->io)};
    tb_shard_record(s, TB_REC_ACCT_DELETE, 0, r->id.id.acct, tb_slice(&d, sizeof(d)), none, none);
    struct tb_account *a = tb_shard_account(s, r->id.id.acct);
    if (a != NULL)
        a->deleted = true;
    tb_shard_touched(s, r->id.id.acct, 0);
}

static void deleted_place(struct tb_op *op)
{
    struct request *r = op->user;
    if (r->call.rc != TB_OK)
        request_end(r, r->call.rc);
    else
        go(r, r->id.id.shard, delete_mail, simple_done);
}

void tb_account_delete(struct tb_worker *w, struct tb_slice name, struct tb_op *op)
{
    struct request *r = request_new(w, name, tb_slice(NULL, 0), op);
    if (r != NULL)
        go(r, 0, delete_place, deleted_place);
}

/* ---- undelete: PLACE first, then the mail: a crash in between is mended by tb_trash_sweep ---- */

static void undelete_place(struct tb_call *call, struct tb_worker *owner)
{
    enum { MARGIN_S = 60 };
    struct request *r = call->user;
    struct tb_shard *s = owner->store->shard[0];
    struct tb_slice none = tb_slice(NULL, 0), v;
    struct tb_identity other;
    struct tb_pay_purge gone = {.due = r->until, .acct = r->id.id.acct, .mbox = TB_TRASH_PLACE};
    struct tb_key k = tb_trash_key(r->until, r->id.id.acct, TB_TRASH_PLACE, 0);
    call->rc = TB_NOTFOUND;
    if (r->until < tb_io_wall_s(owner->io) + MARGIN_S || !tb_index_get(s->ix, TB_DB_TRASH, tb_key_slice(&k), &v) ||
        !tb_place_read(tb_slice_sub(v, sizeof(struct tb_disk_grave), SIZE_MAX), r->id.id.acct, &r->id))
        return;
    call->rc = tb_directory_find(owner->store, tb_slice_str(r->id.name), &other) == TB_OK ? TB_EXISTS : TB_OK;
    for (const struct tb_creating *c = owner->store->creating; c != NULL; c = c->next)
        if (strcmp(c->name, r->id.name) == 0)
            call->rc = TB_EXISTS;
    if (call->rc == TB_OK)
        call->rc = tb_shard_admit(s, sizeof(struct tb_pay_place) + TB_NAME_MAX + TB_SECRET_MAX + sizeof(gone), 2,
                                  ADMIT_CALL);
    if (call->rc == TB_OK)
        call->rc = tb_directory_reserve(owner->store);
    if (call->rc != TB_OK)
        return;
    log_place(s, &r->id);
    tb_shard_record(s, TB_REC_PURGE, 0, 0, tb_slice(&gone, sizeof(gone)), none, none);
    tb_directory_set(owner->store, &r->id); /* now: nobody else may take the name */
}

static void undelete_mail(struct tb_call *call, struct tb_worker *owner)
{
    struct request *r = call->user;
    struct tb_shard *s = tb_shard_of(owner, r->id.id.shard);
    struct tb_slice none = tb_slice(NULL, 0);
    struct tb_disk_acct row;
    if (!tb_acct_get(s->ix, r->id.id.acct, &row) || !(row.flags & TB_ACCT_DELETED))
        return;
    call->rc = tb_shard_admit(s, sizeof(struct tb_pay_undelete), 1, ADMIT_CALL);
    if (call->rc != TB_OK)
        return;
    struct tb_pay_undelete u = {.due = row.due};
    tb_shard_record(s, TB_REC_UNDELETE, 0, r->id.id.acct, tb_slice(&u, sizeof(u)), none, none);
    struct tb_account *a = tb_shard_account(s, r->id.id.acct);
    if (a != NULL)
        a->deleted = false;
    tb_shard_touched(s, r->id.id.acct, 0);
}

static void undeleted_place(struct tb_op *op)
{
    struct request *r = op->user;
    if (r->call.rc != TB_OK)
        request_end(r, r->call.rc);
    else
        go(r, r->id.id.shard, undelete_mail, simple_done);
}

void tb_account_undelete(struct tb_worker *w, uint32_t acct, int64_t until, struct tb_op *op)
{
    struct request *r = request_new(w, TB_SLICE("x"), tb_slice(NULL, 0), op);
    if (r == NULL)
        return;
    r->id.id.acct = acct;
    r->until = until;
    go(r, 0, undelete_place, undeleted_place);
}
