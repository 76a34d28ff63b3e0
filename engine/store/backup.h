/*
 * backup.h: a backup under way. Private to engine/store: backup.c moves it from shard to shard, backup_work.c does what
 * blocks.
 */
#ifndef TB_BACKUP_INTERNAL_H
#define TB_BACKUP_INTERNAL_H

#include <stdatomic.h>

#include <tambo/backup.h>
#include "engine/store/copy.h"
#include "engine/store/piece.h"

struct tb_todo { /* a stretch of a segment to be copied */
    uint32_t segment;
    uint64_t from;
    bool compare; /* is what the folder has of it this log's? (The frame that would prove it is gone.) */
};
struct tb_backup {
    struct tb_store *store; /* borrowed */
    struct tb_worker *w;    /* borrowed: the loop that it runs on */
    pthread_mutex_t lock;   /* of status */
    struct tb_backup_status status;
    atomic_bool cancel;
    bool slicing, resting; /* op is with a helper, or with the clock */
    char dest[TB_PATH];
    uint64_t rate_bytes;
    uint32_t keep, keep_days;
    /* in flight: one at a time, but for call and copy together */
    struct tb_op op, hop;
    struct tb_call call;
    struct tb_copy_job copy;
    unsigned waiting;
    enum tb_rc rc;
    struct tb_error err;
    void (*then)(struct tb_backup *b); /* the next thing, on w */
    bool (*work)(struct tb_backup *b); /* a slice, on a helper; true: there is more. Sets rc */
    uint64_t slice_bytes, slice_began_ns;
    int lock_fd;
    struct tb_manifest prev, cur;
    bool have_prev, pinned, more;
    /* shard k, as its owner tells */
    uint32_t k;
    uint64_t applied, durable;
    int64_t durable_ms;
    uint32_t *segment; /* owned: those that exist, ascending */
    size_t segments_n, segments_cap;
    struct tb_todo *todo; /* owned */
    size_t todo_n, todo_at;
    struct tb_piece piece;
    struct tb_disk_copy head; /* of the index copy that was just made */
};

/* backup_work.c: on a helper thread, nobody else looks at b meanwhile. Each is a `work`. */
bool tb_backup_open_dest(struct tb_backup *b); /* folder, lock, the newest manifest */
bool tb_backup_plan(struct tb_backup *b);      /* shard k: folders, what is there already, what to do */
bool tb_backup_log(struct tb_backup *b);       /* shard k: a slice of a piece */
bool tb_backup_dicts(struct tb_backup *b);     /* shard k: its dictionaries */
bool tb_backup_commit(struct tb_backup *b);    /* the manifest; then what keep lets go */
/* tb_backup_prune: remove what keep and keep_days let go of. */
void tb_backup_prune(struct tb_backup *b);
/* tb_backup_wants_index: no older copy in the folder will do: its log is too long, or has a hole. */
bool tb_backup_wants_index(const struct tb_backup *b);
void tb_backup_tell(struct tb_backup *b, uint64_t done, uint64_t total);

#endif
