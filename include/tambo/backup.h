/*
 * backup.h: copies of the whole store in another folder, made while it serves, each time only what is new; and the way
 * back, to the newest of them or to any moment between. Layout of the folder: docs/FORMAT.md, "Backups".
 */
#ifndef TAMBO_BACKUP_H
#define TAMBO_BACKUP_H

#include <tambo/store.h>

struct tb_backup_options {
    const char *dest;    /* folder; made if missing */
    uint64_t rate_bytes; /* a second, read and written, at most; 0: no limit */
    uint32_t keep;       /* backups to keep, this one included; 0: all */
    uint32_t keep_days;  /* backups younger than this are kept too; 0: age keeps nothing */
};
struct tb_backup_status {
    bool running;
    enum tb_rc rc;                     /* of the last one that ended */
    struct tb_error err;               /* when rc is not OK */
    uint32_t run;                      /* number of the backup; 0: not known yet */
    uint32_t shard, shards;            /* which one is being copied */
    uint64_t done_bytes, total_bytes;  /* of this shard; total grows while it is learnt */
    uint64_t copied_bytes, kept_bytes; /* new in the folder; there already and still part of it */
    uint32_t copied_files, kept_files;
    uint32_t damaged_segments;            /* copied as they are: a frame in them is damaged */
    uint32_t removed_runs, removed_files; /* by keep and keep_days */
    int64_t time_ms;                      /* what was acknowledged before this moment is in it */
};
/*
 * tb_backup_start: begin a backup of the whole store; it goes on by itself on w and the helper threads. Nothing that a
 * client waits for is held up. OK; BUSY: one is running; INVALID: no path; LIMIT. Any worker's thread, that worker's
 * own.
 */
enum tb_rc tb_backup_start(struct tb_worker *w, const struct tb_backup_options *opt,
                           struct tb_error *err) TB_USE_RESULT;
/* tb_backup_status: how far it is, or how the last one ended. Any thread. */
void tb_backup_status(struct tb_store *store, struct tb_backup_status *out);
/* tb_backup_cancel: end the running one soon; what it has copied stays for the next one. Any thread. */
void tb_backup_cancel(struct tb_store *store);

/* ---- the way back; these block, and need no open store ---- */

struct tb_backup_run { /* one backup in a folder */
    uint32_t run, shards;
    int64_t time_ms; /* what was acknowledged before this moment is in it */
    int64_t from_ms; /* restore can go back from time_ms to here, moment by moment; = time_ms: not at all */
    uint64_t bytes;  /* of the files it needs; files may serve several */
    uint32_t files;
};
/* tb_backup_list: call each(user, run) from the oldest to the newest. NOTFOUND: there is no backup; CORRUPT, IO. */
enum tb_rc tb_backup_list(struct tb_io *io, const char *dest, void (*each)(void *user, const struct tb_backup_run *run),
                          void *user, struct tb_error *err) TB_USE_RESULT;

struct tb_restore_options {
    const char *dest;              /* the backup */
    const char *to;                /* a folder that does not exist yet */
    int64_t at_ms;                 /* the moment, since 1970; INT64_MAX: the newest there is */
    const char *account, *mailbox; /* only these; NULL: all */
    uint32_t uid;                  /* only this message of the mailbox; 0: all */
    void (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *user;
};
struct tb_restore_result {
    uint32_t run;
    int64_t at_ms; /* up to which moment the store's log now goes; at most a second later than was asked for */
    uint64_t bytes, accounts, messages;
};
/*
 * tb_restore: make `to` a store as it was. Everything read is verified. UIDs and UIDVALIDITY are those of the original;
 * UIDNEXT, MODSEQ and id counters lie far ahead (R14), so that a device that saw what came after asks for everything
 * again and never meets a number twice. On failure `to` is not there; TO.restoring may be. OK; EXISTS; NOTFOUND: no
 * such backup, account, mailbox or message; INVALID: nothing covers that moment (err says what does); CORRUPT: err
 * names the file; NOSPACE, IO.
 */
enum tb_rc tb_restore(struct tb_io *io, const struct tb_restore_options *opt, struct tb_restore_result *out,
                      struct tb_error *err) TB_USE_RESULT;

#endif
