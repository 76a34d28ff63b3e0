/*
 * fuzz_slots.c: SUPER and CKPT: two slots of any content, their checksums made right if the first byte says so. A store
 * is opened with them, or refused with a reason; recovery finds no shard behind them and says so.
 */
#include "world.h"

#include <stdio.h>
#include <sys/stat.h>

enum { SUPER_BYTES = sizeof(struct tb_disk_super), CKPT_BYTES = sizeof(struct tb_disk_ckpt), CRC_AT = 12 };
static struct tb_io *io;
static char dir[112];

static void file_put(const char *name, const uint8_t *slot, size_t len)
{
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    TB_ASSERT(f != NULL);
    for (unsigned i = 0; i < 2; i++)
        TB_ASSERT(fseek(f, (long)i * TB_SLOT_STRIDE, SEEK_SET) == 0 && fwrite(slot + i * len, 1, len, f) == len);
    TB_ASSERT(fseek(f, TB_SLOT_STRIDE + TB_BLOCK - 1, SEEK_SET) == 0 && fputc(0, f) == 0 && fclose(f) == 0);
}

static void seal(uint8_t *slot, size_t len, const char *magic)
{
    memcpy(slot, magic, 8);
    memset(slot + CRC_AT, 0, 4);
    tb_put_le32(slot + CRC_AT, tb_crc32c(0, slot, len));
}

static void open_store(void)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = dir, .workers = 1};
    struct tb_store *store = NULL;
    struct tb_worker *w = NULL;
    enum tb_rc rc = tb_store_open(io, &cfg, &store, &err);
    TB_ASSERT((rc == TB_OK) == (store != NULL) && (rc == TB_OK || err.text[0] != '\0'));
    if (rc != TB_OK)
        return;
    rc = tb_worker_open(store, 0, io, &w, &err);
    TB_ASSERT(rc != TB_OK && err.text[0] != '\0'); /* there is no index */
    tb_store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_in in = {bytes, n};
    struct tb_error err = {0};
    uint8_t super[2 * SUPER_BYTES], ckpt[2 * CKPT_BYTES], block[TB_BLOCK];
    char path[160];
    if (n == 0)
        return 0;
    if (io == NULL) {
        (void)snprintf(dir, sizeof(dir), "%s.store", fuzz_file(TB_SLICE("")));
        (void)snprintf(path, sizeof(path), "%s/shard-00", dir);
        TB_ASSERT(mkdir(dir, 0700) == 0 && mkdir(path, 0700) == 0 && tb_io_open(TB_IO_POSIX, &io, &err) == TB_OK);
    }
    uint8_t how = (uint8_t)fuzz_number(&in, 1);
    for (size_t i = 0; i < sizeof(super); i++)
        super[i] = (uint8_t)fuzz_number(&in, 1);
    for (size_t i = 0; i < sizeof(ckpt); i++)
        ckpt[i] = (uint8_t)fuzz_number(&in, 1);
    for (unsigned i = 0; i < 2; i++) {
        if (how >> i & 1)
            seal(super + i * SUPER_BYTES, SUPER_BYTES, TB_SUPER_MAGIC);
        if (how >> i & 4)
            seal(ckpt + i * CKPT_BYTES, CKPT_BYTES, TB_CKPT_MAGIC);
    }
    file_put("SUPER", super, SUPER_BYTES);
    file_put("shard-00/CKPT", ckpt, CKPT_BYTES);
    (void)snprintf(path, sizeof(path), "%s/shard-00/CKPT", dir);
    enum tb_rc rc = tb_slot_read(io, path, tb_ckpt_check, block, &err);
    TB_ASSERT(rc == TB_OK || rc == TB_CORRUPT);
    TB_ASSERT(!(how & 12) || rc == TB_OK);
    open_store();
    return 0;
}
