/*
 * annot.c: annotations of mailboxes and accounts: reading and setting them.
 *
 * Every change is one frame of ANNOT records; watchers of the mailbox are told to look again (S8). Thread: the shard's
 * owner. RFC 5464.
 */
#include <tambo/annot.h>

#include "engine/store/shard.h"

static enum tb_rc sound(struct tb_account *a, enum tb_rc otherwise)
{
    return tb_shard_sound(a->shard) ? otherwise : TB_IO;
}

/* name_in: the name of a row's key; false: the key is no such row's. */
static bool name_in(struct tb_slice key, struct tb_slice *name)
{
    if (key.len < 8 + 1 + 3 || key.ptr[key.len - 3] != '\0')
        return false;
    *name = tb_slice(key.ptr + 8, key.len - 8 - 3);
    return true;
}

/* add_row: a row of v[*n - 1], or the first one of the next. */
static bool add_row(struct tb_arena *arena, struct tb_annot *v, size_t *n, struct tb_slice name, struct tb_slice row)
{
    bool more = *n > 0 && tb_slice_eq(v[*n - 1].name, name);
    struct tb_annot *one = more ? &v[*n - 1] : &v[*n];
    char *value = tb_arena_alloc(arena, one->value.len + row.len + 1);
    if (value == NULL)
        return false;
    if (more)
        memcpy(value, one->value.ptr, one->value.len);
    else
        one->name = tb_arena_copy(arena, name);
    if (row.len > 0)
        memcpy(value + one->value.len, row.ptr, row.len);
    one->value = tb_slice(value, one->value.len + row.len);
    *n += !more;
    return one->name.ptr != NULL;
}

enum tb_rc tb_annot_list(struct tb_account *a, uint32_t mbox, struct tb_slice under, struct tb_arena *arena,
                         struct tb_annot **v, size_t *n)
{
    struct tb_index *ix = a->shard->ix;
    struct tb_slice k, row, name;
    *n = 0;
    *v = tb_arena_alloc(arena, TB_ANNOT_MAX * sizeof(**v));
    if (*v == NULL)
        return TB_LIMIT;
    if (under.len > TB_ANNOT_NAME_MAX || a->deleted)
        return TB_OK;
    struct tb_key key = tb_annot_key(a->acct, mbox, under);
    size_t prefix = tb_key_slice(&key).len;
    bool more = tb_index_ge(ix, TB_DB_ANNOT, tb_key_slice(&key), prefix, &k, &row);
    for (; more; more = tb_index_next(ix, TB_DB_ANNOT, prefix, &k, &row)) {
        if (!name_in(k, &name) || (under.len > 0 && name.len > under.len && name.ptr[under.len] != '/'))
            continue;
        bool known = *n > 0 && tb_slice_eq((*v)[*n - 1].name, name);
        if ((!known && *n == TB_ANNOT_MAX) || !add_row(arena, *v, n, name, row))
            return TB_LIMIT;
    }
    return sound(a, TB_OK);
}

/* count: how many names there are, and whether v[i]'s is one of them. */
static size_t count(struct tb_account *a, uint32_t mbox, const struct tb_annot *v, size_t n, bool *there)
{
    struct tb_key key = tb_annot_key(a->acct, mbox, tb_slice("", 0));
    struct tb_slice k, row, name;
    size_t found = 0;
    bool more = tb_index_ge(a->shard->ix, TB_DB_ANNOT, tb_key_slice(&key), 8, &k, &row);
    for (; more; more = tb_index_next(a->shard->ix, TB_DB_ANNOT, 8, &k, &row)) {
        if (!name_in(k, &name) || tb_get_be16(k.ptr + k.len - 2) != 0)
            continue;
        found++;
        for (size_t i = 0; i < n; i++)
            there[i] = there[i] || tb_slice_eq(v[i].name, name);
    }
    return found;
}

/* fits: will there be few enough afterwards? What is named twice is counted twice: a limit, not a promise. */
static bool fits(struct tb_account *a, uint32_t mbox, const struct tb_annot *v, size_t n)
{
    bool there[TB_ANNOT_MAX] = {false};
    size_t after = count(a, mbox, v, n, there);
    bool grows = false;
    for (size_t i = 0; i < n; i++) {
        grows = grows || (v[i].value.ptr != NULL && !there[i]);
        after += v[i].value.ptr != NULL && !there[i];
        after -= v[i].value.ptr == NULL && there[i];
    }
    return !grows || after <= TB_ANNOT_MAX;
}

static bool name_valid(struct tb_slice name)
{
    if (name.len == 0 || name.len > TB_ANNOT_NAME_MAX || name.ptr[0] != '/')
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] < 0x20 || name.ptr[i] > 0x7e)
            return false;
    return true;
}

enum tb_rc tb_annot_set(struct tb_account *a, uint32_t mbox, const struct tb_annot *v, size_t n)
{
    struct tb_disk_mbox m;
    size_t bytes = 0;
    bool grows = false;
    if (a->deleted || (mbox != 0 && !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL)))
        return sound(a, TB_NOTFOUND);
    if (n > TB_ANNOT_MAX)
        return TB_OVERQUOTA;
    for (size_t i = 0; i < n; i++) {
        if (!name_valid(v[i].name))
            return TB_INVALID;
        if (v[i].value.len > TB_ANNOT_VALUE_MAX)
            return TB_LIMIT;
        grows = grows || v[i].value.ptr != NULL;
        bytes += sizeof(struct tb_pay_annot) + v[i].name.len + v[i].value.len;
    }
    if (!fits(a, mbox, v, n))
        return TB_OVERQUOTA;
    enum tb_rc rc = tb_shard_admit(a->shard, bytes, (uint32_t)n, grows ? ADMIT_GROW : ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    for (size_t i = 0; i < n; i++) {
        struct tb_pay_annot p = {.mbox = mbox, .name_len = (uint16_t)v[i].name.len};
        tb_shard_record(a->shard, TB_REC_ANNOT, v[i].value.ptr == NULL ? TB_ANNOT_GONE : 0, a->acct,
                        tb_slice(&p, sizeof(p)), v[i].name, v[i].value);
    }
    tb_shard_touched(a->shard, a->acct, mbox != 0 ? mbox : UINT32_MAX);
    return sound(a, TB_OK);
}
