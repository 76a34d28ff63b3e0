/*
 * sim_image.c: the contents of a simulated file as blocks, those of zeros not kept: log segments are nearly all zeros,
 * and a test that looks at thousands of power cuts cannot copy them each time.
 *
 * Invariants
 * M1 bytes of a block behind the image's end are zeros. M2 a block that is not there reads as zeros; one that is there
 *    may be zeros too. Thread: the world's.
 */
#include "sim_world.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char zeros[SIM_BLOCK];

static size_t blocks_of(size_t len)
{
    return (len + SIM_BLOCK - 1) / SIM_BLOCK;
}

const char *sim_image_block(const struct sim_image *m, size_t b)
{
    return b < m->blocks && m->block[b] ? m->block[b] : zeros;
}

bool sim_image_has(const struct sim_image *m, size_t b)
{
    return b < m->blocks && m->block[b];
}

void sim_image_resize(struct sim_image *m, size_t len)
{
    size_t n = blocks_of(len);
    for (size_t b = n; b < m->blocks; b++) {
        free(m->block[b]);
        m->block[b] = NULL;
    }
    if (n > m->blocks) {
        m->block = sim_realloc(m->block, n * sizeof(char *));
        memset(m->block + m->blocks, 0, (n - m->blocks) * sizeof(char *));
        m->blocks = n;
    }
    if (len < m->len && len % SIM_BLOCK != 0 && m->block[n - 1])
        memset(m->block[n - 1] + len % SIM_BLOCK, 0, SIM_BLOCK - len % SIM_BLOCK);
    m->len = len;
}

void sim_image_put(struct sim_image *m, size_t at, const char *bytes, size_t len)
{
    if (at + len > m->len)
        sim_image_resize(m, at + len);
    for (size_t o = 0; o < len;) {
        size_t b = (at + o) / SIM_BLOCK, in = (at + o) % SIM_BLOCK, part = SIM_BLOCK - in;
        part = part < len - o ? part : len - o;
        if (!m->block[b] && memcmp(bytes + o, zeros, part) != 0)
            m->block[b] = sim_calloc(1, SIM_BLOCK);
        if (m->block[b])
            memcpy(m->block[b] + in, bytes + o, part);
        o += part;
    }
}

void sim_image_get(const struct sim_image *m, size_t at, char *out, size_t len)
{
    for (size_t o = 0; o < len;) {
        size_t in = (at + o) % SIM_BLOCK, part = SIM_BLOCK - in;
        part = part < len - o ? part : len - o;
        memcpy(out + o, sim_image_block(m, (at + o) / SIM_BLOCK) + in, part);
        o += part;
    }
}

bool sim_image_is(const struct sim_image *m, size_t at, const char *bytes, size_t len)
{
    for (size_t o = 0; o < len;) {
        size_t in = (at + o) % SIM_BLOCK, part = SIM_BLOCK - in;
        part = part < len - o ? part : len - o;
        if (memcmp(sim_image_block(m, (at + o) / SIM_BLOCK) + in, bytes + o, part) != 0)
            return false;
        o += part;
    }
    return true;
}

void sim_image_free(struct sim_image *m)
{
    for (size_t b = 0; b < m->blocks; b++)
        free(m->block[b]);
    free(m->block);
    *m = (struct sim_image){0};
}

void sim_image_copy(struct sim_image *to, const struct sim_image *from)
{
    *to = (struct sim_image){0};
    sim_image_resize(to, from->len);
    for (size_t b = 0; b < from->blocks; b++) {
        if (from->block[b]) {
            to->block[b] = sim_malloc(SIM_BLOCK);
            memcpy(to->block[b], from->block[b], SIM_BLOCK);
        }
    }
}

/* ---- real files ---- */

size_t sim_data_from(int fd, size_t at, size_t size, size_t *end)
{
    off_t from = lseek(fd, (off_t)at, SEEK_DATA);
    if (from < 0 && errno == ENXIO) { /* nothing but a hole to the end */
        *end = size;
        return size;
    }
    off_t to = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);
    *end = to < 0 || (size_t)to > size ? size : (size_t)to;
    return from < 0 ? at : (size_t)from < size ? (size_t)from : size;
}

int64_t sim_read(int fd, char *buf, size_t len, uint64_t offset)
{
    enum { SMALL = 64 << 10 };
    struct stat st;
    if (len <= SMALL || fstat(fd, &st) < 0)
        return tb_real_read(fd, buf, len, offset);
    if (offset >= (uint64_t)st.st_size)
        return 0;
    size_t size = offset + len < (uint64_t)st.st_size ? offset + len : (size_t)st.st_size, end = 0;
    for (size_t at = offset, from; at < size; at = end < size ? end : size) {
        from = sim_data_from(fd, at, size, &end);
        memset(buf + (at - offset), 0, from - at);
        int64_t n = from < size ? tb_real_read(fd, buf + (from - offset), end - from, from) : 0;
        if (n < 0)
            return n;
    }
    return (int64_t)(size - offset);
}

void sim_image_load(struct sim_image *m, int fd)
{
    char buf[16 * SIM_BLOCK];
    struct stat st;
    size_t size = fstat(fd, &st) < 0 || st.st_size < 0 ? 0 : (size_t)st.st_size, end;
    sim_image_resize(m, 0);
    sim_image_resize(m, size);
    for (size_t at = sim_data_from(fd, 0, size, &end); at < size; at = sim_data_from(fd, at, size, &end)) {
        at -= at % SIM_BLOCK;
        while (at < end) {
            size_t want = sizeof(buf) < size - at ? sizeof(buf) : size - at;
            int64_t got = tb_real_read(fd, buf, want, at);
            TB_ASSERT(got == (int64_t)want); /* the test's own folder, and nobody cuts it short meanwhile */
            sim_image_put(m, at, buf, want);
            at += want;
        }
    }
}

int sim_image_store(const struct sim_image *m, int fd)
{
    int64_t rc = ftruncate(fd, (off_t)m->len) < 0 ? -errno : 0;
    for (size_t b = 0; b < m->blocks && rc >= 0; b++) {
        size_t at = b * SIM_BLOCK, len = 0, first = b;
        char buf[16 * SIM_BLOCK];
        for (; b < m->blocks && m->block[b] && len < sizeof(buf); b++, len += SIM_BLOCK)
            memcpy(buf + len, m->block[b], SIM_BLOCK);
        if (len == 0)
            continue;
        b = first + len / SIM_BLOCK - 1;
        rc = tb_real_write(fd, buf, len < m->len - at ? len : m->len - at, at, false);
    }
    return rc < 0 ? (int)rc : 0;
}
