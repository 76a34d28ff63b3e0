/*
 * fuzz_scan.c: a log segment's bytes: scanned as recovery does, surveyed as a check does. The first byte chooses: the
 * bytes as they are; frames with right headers round them; or frames with right headers of records with right headers,
 * all of which must be found again.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/log/survey.h"

enum { SEGMENT = 1 << 20, FIRST = 4096, ROOM = 256 << 10 };

static struct tb_log_config cfg = {.uuid = "sixteen letters", .shard = 3, .epoch = 9, .segment_bytes = SEGMENT};
static char path[128];
static uint8_t image[ROOM];
static size_t dirty; /* bytes of the segment that the last input left */

static void nothing(void *user, struct tb_log_mark mark)
{
    (void)user;
    (void)mark;
}

static void opened(void)
{
    static char dir[112];
    struct tb_error err = {0};
    struct tb_log *log;
    uint64_t first;
    (void)snprintf(dir, sizeof(dir), "%s.log", fuzz_file(TB_SLICE("")));
    TB_ASSERT(mkdir(dir, 0700) == 0);
    TB_ASSERT(tb_io_open(TB_IO_POSIX, &cfg.io, &err) == TB_OK);
    cfg.dir = dir;
    cfg.events.boundary = nothing;
    TB_ASSERT(tb_log_open(&cfg, &log, &err) == TB_OK && tb_log_format(log, &first, &err) == TB_OK);
    TB_ASSERT(first == SEGMENT + FIRST);
    tb_log_close(log);
    (void)snprintf(path, sizeof(path), "%s/00000001.seg", dir);
}

static size_t record_put(struct fuzz_in *in, size_t at, size_t end)
{
    struct tb_disk_record r = {.type = (uint8_t)fuzz_number(in, 1), .flags = (uint8_t)fuzz_number(in, 1)};
    r.acct = (uint32_t)fuzz_number(in, 1);
    struct tb_slice payload = fuzz_piece(in, 20000);
    r.len = (uint32_t)payload.len;
    if (at + sizeof(r) + payload.len > end)
        return at;
    r.crc = tb_crc32c(tb_crc32c(0, &r, sizeof(r)), payload.ptr, payload.len);
    memcpy(image + at, &r, sizeof(r));
    if (payload.len > 0)
        memcpy(image + at + sizeof(r), payload.ptr, payload.len);
    return at + sizeof(r) + payload.len;
}

/* frame_put: header and content; the position behind it. */
static size_t frame_put(struct fuzz_in *in, size_t at, bool whole, struct tb_log_mark *mark, unsigned *records)
{
    size_t end = at + sizeof(struct tb_disk_frame);
    struct tb_disk_frame f = {.magic = TB_FRAME_MAGIC, .epoch = 9, .lsn = SEGMENT + FIRST + at, .chain = mark->chain};
    uint8_t count = (uint8_t)(1 + fuzz_number(in, 1) % 4);
    if (whole) {
        for (uint8_t i = 0; i < count; i++) {
            size_t next = record_put(in, end, ROOM);
            f.records += next > end;
            end = next;
        }
    } else {
        struct tb_slice content = fuzz_piece(in, ROOM - end);
        memcpy(image + end, content.ptr, content.len);
        end += content.len;
        f.records = count;
    }
    f.len = (uint32_t)(end - at);
    memcpy(image + at, &f, sizeof(f));
    uint32_t crc = tb_crc32c(tb_crc32c(0, cfg.uuid, 16), &cfg.shard, 4);
    f.crc = tb_crc32c(crc, image + at + 8, f.len - 8);
    memcpy(image + at, &f, sizeof(f));
    *mark = (struct tb_log_mark){.end = SEGMENT + FIRST + end, .last = f.lsn, .chain = f.crc};
    *records += f.records;
    return end;
}

static enum tb_rc seen(void *user, const struct tb_record *r)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < r->payload.len; i++)
        sum ^= (uint8_t)r->payload.ptr[i];
    *(unsigned *)user += 1 + (sum & 0);
    return TB_OK;
}

static void survey(void)
{
    struct tb_survey *s = NULL;
    struct tb_survey_frame f;
    struct tb_error err = {0};
    unsigned records = 0;
    enum tb_rc rc = tb_survey_open(&cfg, 1, 0, 0, false, &s, &err);
    TB_ASSERT(rc == TB_OK && s != NULL);
    for (int i = 0; i < 10000 && (rc = tb_survey_next(s, &f)) != TB_NOTFOUND; i++) {
        TB_ASSERT(rc == TB_OK || rc == TB_CORRUPT || rc == TB_BUSY);
        if (rc == TB_OK) {
            rc = tb_survey_records(&f, seen, &records, &err);
            TB_ASSERT(rc == TB_OK || rc == TB_CORRUPT);
        }
    }
    tb_survey_close(s);
}

static void scan(unsigned want, bool all)
{
    struct tb_error err = {0};
    struct tb_log *log;
    struct tb_log_mark from = {.end = SEGMENT + FIRST};
    unsigned records = 0;
    TB_ASSERT(tb_log_open(&cfg, &log, &err) == TB_OK);
    enum tb_rc rc = tb_log_scan(log, from, seen, nothing, &records, &err);
    TB_ASSERT(rc == TB_OK || (rc == TB_CORRUPT && err.text[0] != '\0'));
    TB_ASSERT(!all || (rc == TB_OK && records == want));
    tb_log_close(log);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_in in = {bytes, n};
    unsigned records = 0;
    size_t len = 0;
    struct tb_log_mark mark = {0};
    if (n == 0)
        return 0;
    if (path[0] == '\0')
        opened();
    unsigned way = (unsigned)fuzz_number(&in, 1) % 3;
    memset(image, 0, sizeof(image));
    if (way == 0) {
        len = in.n < ROOM ? in.n : ROOM;
        memcpy(image, in.p, len);
    }
    for (int i = 0; way > 0 && i < 8 && in.n > 0 && len < ROOM / 2; i++)
        len = frame_put(&in, len, way == 2, &mark, &records);
    FILE *f = fopen(path, "r+");
    size_t write = len > dirty ? len : dirty;
    TB_ASSERT(f != NULL && fseek(f, FIRST, SEEK_SET) == 0 && fwrite(image, 1, write, f) == write && fclose(f) == 0);
    dirty = len;
    scan(records, way == 2);
    survey();
    return 0;
}
