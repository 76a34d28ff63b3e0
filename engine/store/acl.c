/*
 * acl.c: access control lists: read, changed, and turned into what a user may do.
 *
 * It decides nothing about commands: frontends ask for rights and refuse. Invariant: a right is given only by a row of
 * the index that was written after its owner said so (record ACL); an index that fails gives none. Thread: the shard's
 * owner. RFC 4314 2 (rights and how entries add up).
 */
#include <tambo/acl.h>

#include "engine/store/apply.h"

#include <stdlib.h>

/* ---- letters ---- */

static const struct {
    char letter;
    uint32_t rights;
} obsolete[] = {{'c', TB_RIGHT_CREATE | TB_RIGHT_DELETE_MAILBOX}, {'d', TB_RIGHT_DELETE | TB_RIGHT_EXPUNGE}};

bool tb_rights_read(struct tb_slice letters, uint32_t *rights)
{
    static const char known[] = TB_RIGHTS_LETTERS;
    *rights = 0;
    for (size_t i = 0; i < letters.len; i++) {
        const char *at = letters.ptr[i] != '\0' ? strchr(known, letters.ptr[i]) : NULL;
        uint32_t more = at ? 1u << (at - known) : 0;
        for (size_t k = 0; k < TB_ARRAY_LEN(obsolete); k++)
            more |= letters.ptr[i] == obsolete[k].letter ? obsolete[k].rights : 0;
        if (more == 0)
            return false;
        *rights |= more;
    }
    return true;
}

const char *tb_rights_text(uint32_t rights, char out[TB_RIGHTS_ROOM])
{
    static const char known[] = TB_RIGHTS_LETTERS;
    char *p = out;
    for (size_t i = 0; known[i] != '\0'; i++)
        if (rights >> i & 1)
            *p++ = known[i];
    for (size_t k = 0; k < TB_ARRAY_LEN(obsolete); k++)
        if (rights & obsolete[k].rights)
            *p++ = obsolete[k].letter;
    *p = '\0';
    return out;
}

/* ---- entries ---- */

static enum tb_rc failed_or(struct tb_account *a, enum tb_rc otherwise)
{
    return tb_shard_sound(a->shard) ? otherwise : TB_IO;
}

static bool is_there(struct tb_account *a, uint32_t mbox)
{
    struct tb_disk_mbox m;
    return !a->deleted && tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL) && !(m.flags & TB_MBOX_NOSELECT);
}

uint32_t tb_acl_get(struct tb_account *a, uint32_t mbox, uint32_t user, bool negative)
{
    struct tb_key k = tb_acl_key(a->acct, mbox, user, negative);
    struct tb_disk_acl row;
    struct tb_slice v;
    if (!tb_index_get(a->shard->ix, TB_DB_ACL, tb_key_slice(&k), &v) || v.len < sizeof(row))
        return 0;
    memcpy(&row, v.ptr, sizeof(row));
    return row.rights & TB_RIGHTS_ALL;
}

uint32_t tb_acl_rights(struct tb_account *a, uint32_t mbox, uint32_t user)
{
    const uint32_t who[] = {user, TB_ACL_ANYONE, TB_ACL_AUTHENTICATED};
    uint32_t given = 0, taken = 0;
    if (user == a->acct)
        return TB_RIGHTS_ALL;
    if (!is_there(a, mbox))
        return 0;
    for (size_t i = 0; i < TB_ARRAY_LEN(who); i++) {
        given |= tb_acl_get(a, mbox, who[i], false);
        taken |= tb_acl_get(a, mbox, who[i], true);
    }
    return given & ~taken;
}

uint32_t tb_acl_entries(struct tb_shard *s, uint32_t acct, uint32_t mbox)
{
    struct tb_key key = tb_acl_key(acct, mbox, 0, false);
    struct tb_slice k, v;
    uint32_t n = 0;
    bool more = tb_index_ge(s->ix, TB_DB_ACL, tb_key_slice(&key), 8, &k, &v);
    for (; more; more = tb_index_next(s->ix, TB_DB_ACL, 8, &k, &v))
        n++;
    return n;
}

void tb_acl_inherit(struct tb_shard *s, uint32_t acct, uint32_t from, uint32_t to)
{
    struct tb_pay_acl p = {.mbox = to, .from = from};
    struct tb_slice none = tb_slice(NULL, 0);
    if (tb_acl_entries(s, acct, from) > 0)
        tb_shard_record(s, TB_REC_ACL, TB_ACL_INHERIT, acct, tb_slice(&p, sizeof(p)), none, none);
}

enum tb_rc tb_acl_list(struct tb_account *a, uint32_t mbox, struct tb_arena *arena, struct tb_acl_entry **v, size_t *n)
{
    struct tb_key key = tb_acl_key(a->acct, mbox, 0, false);
    struct tb_slice k, row;
    *n = 0;
    *v = tb_arena_alloc(arena, TB_ACL_MAX * sizeof(**v));
    if (*v == NULL)
        return TB_LIMIT;
    if (!is_there(a, mbox))
        return failed_or(a, TB_NOTFOUND);
    bool more = tb_index_ge(a->shard->ix, TB_DB_ACL, tb_key_slice(&key), 8, &k, &row);
    for (; more && *n < TB_ACL_MAX; more = tb_index_next(a->shard->ix, TB_DB_ACL, 8, &k, &row)) {
        struct tb_disk_acl acl;
        if (k.len != TB_ACL_KEY || row.len < sizeof(acl))
            return TB_CORRUPT;
        memcpy(&acl, row.ptr, sizeof(acl));
        (*v)[(*n)++] = (struct tb_acl_entry){.user = tb_get_be32(k.ptr + 8),
                                             .negative = k.ptr[TB_ACL_KEY - 1] != 0,
                                             .rights = acl.rights & TB_RIGHTS_ALL,
                                             .name = tb_arena_copy(arena, tb_slice_sub(row, sizeof(acl), SIZE_MAX))};
    }
    return arena->overflowed ? TB_LIMIT : failed_or(a, TB_OK);
}

enum tb_rc tb_acl_set(struct tb_account *a, uint32_t mbox, const struct tb_acl_entry *e)
{
    struct tb_pay_acl p = {.mbox = mbox, .user = e->user, .rights = e->rights & TB_RIGHTS_ALL};
    uint32_t now = tb_acl_get(a, mbox, e->user, e->negative);
    if (!is_there(a, mbox))
        return failed_or(a, TB_NOTFOUND);
    if (e->user == a->acct || e->name.len > TB_NAME_MAX)
        return TB_INVALID;
    if (now == p.rights)
        return failed_or(a, TB_OK);
    if (now == 0 && tb_acl_entries(a->shard, a->acct, mbox) >= TB_ACL_MAX)
        return TB_LIMIT;
    enum tb_rc rc = tb_shard_admit(a->shard, sizeof(p) + e->name.len, 2, p.rights != 0 ? ADMIT_GROW : ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    tb_shard_record(a->shard, TB_REC_ACL, e->negative ? TB_ACL_NEGATIVE : 0, a->acct, tb_slice(&p, sizeof(p)), e->name,
                    tb_slice(NULL, 0));
    atomic_store(&a->shard->shares, true);
    tb_shard_touched(a->shard, a->acct, mbox);
    return failed_or(a, TB_OK);
}

/* ---- what is shared with a user ---- */

bool tb_acl_any(const struct tb_store *store, uint32_t shard)
{
    return shard < store->super.shards && atomic_load(&store->shard[shard]->shares);
}

/* seen_before: was this mailbox met in an earlier stage, under another of the user's names? */
static bool seen_before(struct tb_shard *s, const uint32_t *who, uint32_t stage, uint32_t acct, uint32_t mbox)
{
    struct tb_account a = {.shard = s, .acct = acct};
    for (uint32_t i = 0; i < stage; i++)
        if (tb_acl_get(&a, mbox, who[i], false) != 0)
            return true;
    return false;
}

/* shared_one: a mailbox that has an entry for the user: *out and true if it is there and may be looked up. */
static bool shared_one(struct tb_worker *w, struct tb_shard *s, uint32_t user, uint32_t acct, uint32_t mbox,
                       struct tb_arena *arena, struct tb_shared *out)
{
    struct tb_account_id id = {.shard = s->number, .acct = acct};
    struct tb_account *a;
    if (acct == user || tb_account_open(w, id, &a) != TB_OK)
        return false;
    *out = (struct tb_shared){.id = id, .rights = tb_acl_rights(a, mbox, user)};
    bool good = out->rights & TB_RIGHT_LOOKUP && tb_mailbox_get(a, mbox, arena, &out->mailbox) == TB_OK;
    if (good)
        out->owner = tb_account_name(a, arena);
    tb_account_close(a);
    return good && out->owner.len > 0;
}

bool tb_acl_shared_one(struct tb_worker *w, uint32_t shard, uint32_t user, uint32_t acct, uint32_t mbox,
                       struct tb_arena *arena, struct tb_shared *out)
{
    struct tb_shard *s = tb_shard_of(w, shard);
    return s != NULL && tb_shard_sound(s) && shared_one(w, s, user, acct, mbox, arena, out);
}

enum tb_rc tb_acl_shared(struct tb_worker *w, uint32_t shard, uint32_t user, struct tb_shared_at *at,
                         struct tb_arena *arena, size_t max, struct tb_shared *v, size_t *n)
{
    const uint32_t who[] = {user, TB_ACL_ANYONE, TB_ACL_AUTHENTICATED};
    struct tb_shard *s = tb_shard_of(w, shard);
    struct tb_slice k, row;
    *n = 0;
    if (s == NULL || !tb_shard_sound(s))
        return TB_IO;
    for (size_t looked = 0; !at->end && at->stage < TB_ARRAY_LEN(who) && looked < max; looked++) {
        struct tb_key key;
        tb_key_begin(&key);
        tb_key_u32(&key, UINT32_MAX);
        tb_key_u32(&key, who[at->stage]);
        tb_key_u32(&key, at->acct);
        tb_key_u32(&key, at->mbox);
        if (!tb_index_ge(s->ix, TB_DB_ACL, tb_key_slice(&key), 8, &k, &row) || k.len != 16) {
            at->stage++;
            at->acct = at->mbox = 0;
            at->end = at->stage == TB_ARRAY_LEN(who);
            continue;
        }
        uint32_t acct = tb_get_be32(k.ptr + 8), mbox = tb_get_be32(k.ptr + 12);
        at->acct = acct;
        at->mbox = mbox + 1; /* mailbox numbers end far below the last one */
        if (!seen_before(s, who, at->stage, acct, mbox) && shared_one(w, s, user, acct, mbox, arena, &v[*n]))
            ++*n;
    }
    return arena->overflowed ? TB_LIMIT : tb_shard_sound(s) ? TB_OK : TB_IO;
}
