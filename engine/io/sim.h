/*
 * sim.h: the controls of the simulated world: one seed, one virtual clock, one disk, one network, any number of ios.
 *
 * A test makes a world over an empty or existing folder, makes one io for each worker it models, and turns them in one
 * thread. Everything that could vary (completion times and order, what survives a power cut, chunk sizes, random bytes)
 * comes from the seed; real time, addresses and inode numbers never do: same seed, same calls, same run.
 *
 * The disk has two images of every file. The cached image is the real folder: descriptors are real ones, so a library
 * that maps or writes files there by itself (LMDB) sees the same bytes. The durable image is kept in memory: bytes that
 * a durable write or a datasync completed, and names that a sync_dir completed. A power cut makes the folder what a
 * machine could find after it: the durable image, plus for each 512-byte sector and each name that was not durable
 * a seeded choice. The rebuilt files are new ones, so descriptors and mappings of the dead process see nothing of them.
 */
#ifndef TAMBO_IO_SIM_H
#define TAMBO_IO_SIM_H

#include <tambo/io.h>

struct tb_sim;

/*
 * tb_sim_new: a world over root_dir, an absolute path of an existing folder. What is in it counts as durable. Paths
 * given to its ios must lie in it (-EACCES). NULL without memory or if the folder can't be read.
 */
struct tb_sim *tb_sim_new(uint64_t seed, const char *root_dir) TB_USE_RESULT;
/* tb_sim_free: the world and whatever ios are left; the folder stays. */
void tb_sim_free(struct tb_sim *sim);
/* tb_sim_io: one more worker's io, closed by tb_io_close, tb_sim_restart or tb_sim_free. */
struct tb_io *tb_sim_io(struct tb_sim *sim) TB_USE_RESULT;

/* ---- time and turns ---- */

/* tb_sim_advance: the clock moves on; what falls due meanwhile runs at the next turns. */
void tb_sim_advance(struct tb_sim *sim, uint64_t ns);
uint64_t tb_sim_now_ns(const struct tb_sim *sim);
/* tb_sim_set_wall: tb_io_wall_s jumps to this, and goes on from there. */
void tb_sim_set_wall(struct tb_sim *sim, int64_t seconds);
/* tb_sim_latency: every op takes between min and max from now on (default 1 us to 200 us, long ones being rare). */
void tb_sim_latency(struct tb_sim *sim, uint64_t min_ns, uint64_t max_ns);
/*
 * tb_sim_turn: turn one io that has something due, chosen by the seed; if none has, the clock first moves on to the
 * next event of any. Returns how many done ran; 0 if there is nothing at all to wait for.
 */
unsigned tb_sim_turn(struct tb_sim *sim);
/* tb_sim_next_ns: when something is due next in any io; UINT64_MAX: nothing ever. For tests that turn workers. */
uint64_t tb_sim_next_ns(const struct tb_sim *sim);
/* tb_sim_digest: a hash of everything that has happened: equal for equal runs. */
uint64_t tb_sim_digest(const struct tb_sim *sim);
/* tb_sim_choose: a number below n from the seed, for the test's own choices. */
uint64_t tb_sim_choose(struct tb_sim *sim, uint64_t n);

/* ---- power and process ---- */

enum tb_sim_cut {
    TB_SIM_CUT_NONE,   /* nothing survives that was not durable */
    TB_SIM_CUT_ALL,    /* everything survives, ops in flight included */
    TB_SIM_CUT_RANDOM, /* each sector and each name by itself */
    TB_SIM_CUT_TORN,   /* everything survives but a part of the last write that was not durable */
    TB_SIM_CUT_TRASH,  /* as RANDOM, and sectors of writes in flight may hold neither old nor new bytes */
};

/*
 * tb_sim_power_cut: the machine loses power and the folder becomes what is found afterwards. All ops in flight are
 * forgotten without done, all descriptors, sockets and ios are dead: as tb_sim_restart. 0 or -errno (of the real
 * folder). Not from inside a done.
 */
int tb_sim_power_cut(struct tb_sim *sim, enum tb_sim_cut mode) TB_USE_RESULT;
/*
 * tb_sim_image: write what would be found after a power cut now into another folder, an empty one; this world goes on
 * and none of its choices changes: the image's come from `seed`. 0 or -errno. May be called by a watcher.
 */
int tb_sim_image(struct tb_sim *sim, enum tb_sim_cut mode, uint64_t seed, const char *dir) TB_USE_RESULT;
/*
 * tb_sim_watch: fn runs after everything that changes what a power cut could find: writes (a library's own ones
 * included), durable writes submitted, syncs and changes of names done. It runs inside the call that made the change
 * and must not touch this world but by tb_sim_image and tb_sim_now_ns. NULL stops.
 */
void tb_sim_watch(struct tb_sim *sim, void (*fn)(void *user), void *user);
/*
 * tb_sim_foreign_write: a library is about to write to a file by itself (LMDB; the test program's own write calls
 * hand it over). False: not a file of this world, write it as usual. True: it is done, *result is what the library must
 * be told: bytes, or -errno. Counts as TB_SIM_WRITE.
 */
bool tb_sim_foreign_write(struct tb_sim *sim, int fd, const void *buf, size_t len, uint64_t offset, int64_t *result);
/*
 * tb_sim_own_memory: above 0 while the world allocates for itself: a test that makes allocations fail, or that frees
 * what a dead process held, must leave these alone.
 */
extern volatile unsigned tb_sim_own_memory; /* volatile: compilers think that malloc looks at nothing */
/*
 * tb_sim_restart: the process dies and a new one may begin: ios, descriptors, sockets and ops in flight are forgotten;
 * the cached image stays, what is durable stays as it is. Each write in flight happens whole or not at all. Make new
 * ios. Dead ios may still be called, so that the dead process's memory can be taken down: nothing they are asked for
 * happens, and no done runs. Not from inside a done.
 */
void tb_sim_restart(struct tb_sim *sim);

/* ---- faults ---- */

enum tb_sim_kind {
    TB_SIM_OPEN,
    TB_SIM_READ,    /* tb_io_read, tb_io_pread */
    TB_SIM_WRITE,   /* tb_io_write not durable, tb_io_pwrite */
    TB_SIM_DURABLE, /* tb_io_write durable */
    TB_SIM_SYNC,    /* tb_io_datasync, tb_io_sync */
    TB_SIM_SYNC_DIR,
    TB_SIM_RESERVE,
    TB_SIM_NAMES, /* mkdir, rename, unlink */
    TB_SIM_RECV,
    TB_SIM_SEND,
    TB_SIM_ACCEPT, /* the nth connection */
    TB_SIM_CONNECT,
    TB_SIM_KINDS,
};

/*
 * tb_sim_fail_nth: of the calls of this kind from now on, the nth (1: the next) fails with -error, and with sticky all
 * later ones too. n = 0 takes the fault away. A failed write may have left any of its sectors in the cached image; a
 * failed sync made any part durable, and what it did not is never written by a later sync that succeeds: as Linux does.
 */
void tb_sim_fail_nth(struct tb_sim *sim, enum tb_sim_kind kind, uint64_t n, int error, bool sticky);
/* TB_SIM_SHORT as an error: the call moves only part of its bytes and says so; calls without a size are spared. */
enum { TB_SIM_SHORT = 1 << 20 };
/*
 * tb_sim_fail_any: the same over all kinds in the set (bits 1 << kind), counted together from now on; n = 0 only
 * counts. tb_sim_count_any: how many there were since.
 */
void tb_sim_fail_any(struct tb_sim *sim, uint32_t kinds, uint64_t n, int error, bool sticky);
uint64_t tb_sim_count_any(const struct tb_sim *sim);
/* tb_sim_odds: from now on one in so many calls of the kind fails, by the seed; 0: none. tb_sim_injected: how many
 * calls of the kind failed by order, of whatever sort. */
void tb_sim_odds(struct tb_sim *sim, enum tb_sim_kind kind, uint32_t one_in, int error);
uint64_t tb_sim_injected(const struct tb_sim *sim, enum tb_sim_kind kind);
/* tb_sim_flip_reads: one in so many reads returns a bit wrong; the bytes on the disk are right, and a
 * second read of the place soon after is, too. 0: none. */
void tb_sim_flip_reads(struct tb_sim *sim, uint32_t one_in);
uint64_t tb_sim_flipped(const struct tb_sim *sim);
/* tb_sim_count: calls of this kind so far: to sweep n over a known run. */
uint64_t tb_sim_count(const struct tb_sim *sim, enum tb_sim_kind kind);
/* tb_sim_split: writes reach the disk in several parts over time, and receives see bytes in random pieces. */
void tb_sim_split(struct tb_sim *sim, bool on);
/* tb_sim_lie: a disk that reports success and forgets: durable writes are as others, and/or syncs do nothing. */
void tb_sim_lie(struct tb_sim *sim, bool durable_writes, bool syncs);
/* tb_sim_block_bytes: what tb_io_block_bytes says from now on (default 512). What a cut tears stays 512 bytes. */
void tb_sim_block_bytes(struct tb_sim *sim, uint32_t bytes);
/* tb_sim_flip_bit: a bit of a file rots, in both images. 0 or -errno. */
int tb_sim_flip_bit(struct tb_sim *sim, const char *path, uint64_t offset, unsigned bit) TB_USE_RESULT;
/*
 * tb_sim_rot_below: a bit of a file rots on the disk, and the page cache, which thinks that it is clean, still shows
 * what was there: until it is told to forget (tb_io_file_forget), or a power cut. After a failed sync of that file, or
 * when all of it is durable. 0 or -errno.
 */
int tb_sim_rot_below(struct tb_sim *sim, const char *path, uint64_t offset, unsigned bit) TB_USE_RESULT;
/*
 * tb_sim_is_durable: would these bytes survive any power cut as they are now in the cached image? False too if the
 * file's name would not. For tests that must know what a cut could take.
 */
bool tb_sim_is_durable(struct tb_sim *sim, const char *path, uint64_t offset, uint64_t len);

/* ---- network: the other end of a connection, driven by the test ---- */

/* tb_sim_connect: a client connects to a listener ("127.0.0.1" and a port, or "unix:/path"); a handle or -ECONNREFUSED.
 */
int tb_sim_connect(struct tb_sim *sim, const char *address, uint16_t port);
/* tb_sim_connect_from: as seen from another address: what tb_io_peer says. */
int tb_sim_connect_from(struct tb_sim *sim, const char *address, uint16_t port, const char *from);
/* tb_sim_client_send: all bytes are on their way; -EPIPE when the server has closed. */
int tb_sim_client_send(struct tb_sim *sim, int client, const void *bytes, size_t len);
/* tb_sim_client_recv: bytes that have come, up to len; -EAGAIN if none yet; 0: the server closed; -ECONNRESET. */
int64_t tb_sim_client_recv(struct tb_sim *sim, int client, void *buf, size_t len);
/* tb_sim_client_window: the server's sends wait while this many bytes are unread (default 256 KiB). */
void tb_sim_client_window(struct tb_sim *sim, int client, size_t bytes);
/* tb_sim_client_close: the client closes; the handle is gone. With reset, the server sees ECONNRESET. */
void tb_sim_client_close(struct tb_sim *sim, int client, bool reset);

#endif
