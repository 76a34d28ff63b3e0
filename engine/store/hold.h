/*
 * hold.h: how far the newest backup has each shard's log, so that GC can leave what it lacks to the next one: then the
 * backups in a folder have no gap, and any moment between them can be restored. Private to engine/store.
 *
 * It is a hint, kept in the file BACKUP (docs/FORMAT.md): without it nothing is held, and no mail depends on it.
 */
#ifndef TB_STORE_HOLD_H
#define TB_STORE_HOLD_H

#include "engine/store/manifest.h"

/* tb_hold_load: what the last process knew. A file that is missing or damaged holds nothing. Blocks; at the start. */
void tb_hold_load(struct tb_io *io, struct tb_store *store);
/* tb_hold_note: a backup has its manifest. Blocks; a helper, one at a time. IO, NOSPACE: known until the next start. */
enum tb_rc tb_hold_note(struct tb_io *io, struct tb_store *store, const struct tb_manifest *m,
                        struct tb_error *err) TB_USE_RESULT;
/* tb_hold_keeps: does the next backup need this segment, and is it still waited for? Shard's owner; cheap. */
bool tb_hold_keeps(const struct tb_shard *s, uint32_t segment);

#endif
