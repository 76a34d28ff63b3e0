/*
 * bench.h: what the files of tambo-bench share: options, the corpus, a client connection, a load thread, the workloads.
 *
 * tambo-bench loads any IMAP, SMTP or LMTP server and checks the answers while it does so. Clients are closed loops:
 * each has at most one operation under way and starts the next when the last has ended. A load thread owns its tb_io
 * and its clients alone; the main thread starts and ends the phases by tb_io_post and reads the threads' results when
 * they rest.
 *
 * Invariants
 * B1 corpus, users and options are read-only once the threads run.
 * B2 a client has at most one send and one receive in flight; it is freed only when both are back.
 * B3 a refusal (a negative reply) and a wrong answer (malformed, missing or altered data) each make the run fail.
 */
#ifndef TB_BENCH_H
#define TB_BENCH_H

#include <pthread.h>
#include <stdatomic.h>

#include <tambo/base.h>
#include <tambo/io.h>

/* ---- options (options.c) ---- */

enum { BENCH_PIDS_MAX = 64, BENCH_DIRS_MAX = 8 };

struct bench_user {
    const char *name, *password; /* borrowed: live as long as the options */
};

struct bench_options {
    const struct bench_workload *workload;
    int argc;
    char **argv;
    const char *host;
    uint16_t port;
    uint32_t connections, threads;
    uint64_t seconds, warmup_s;
    uint64_t count; /* operations in all; 0: no limit */
    uint32_t recipients;
    bool pipelined, smtp, posix;
    const char *mailbox;
    const char *users_file, *user_pattern, *password;
    uint32_t user_count;
    struct bench_user *users; /* owned */
    size_t user_n;
    char *user_text; /* owned: what users point into */
    const char *corpus_dirs[BENCH_DIRS_MAX];
    size_t corpus_dir_n;
    bool seeded;
    uint64_t seed;
    uint32_t messages; /* that the generator makes */
    uint32_t check_every;
    const char *json, *label, *device;
    int pids[BENCH_PIDS_MAX];
    size_t pid_n;
    const char *pgrep;
};

/* bench_options_parse: fill o from the command line. Returns -1 to go on, else the exit code (help shown, or usage
 * error said). */
int bench_options_parse(struct bench_options *o, int argc, char **argv);
/* bench_options_users: read or make the user list. INVALID with err. */
enum tb_rc bench_options_users(struct bench_options *o, struct tb_io *io, struct tb_error *err) TB_USE_RESULT;
void bench_options_free(struct bench_options *o);

/* ---- corpus (corpus.c, generate.c) ---- */

struct bench_message {
    struct tb_slice content; /* CRLF form, ends with CRLF */
    struct tb_slice wire;    /* dot-stuffed, with the final "." line (RFC 5321 4.5.2) */
    bool eight_bit;
};

struct bench_corpus {
    struct bench_message *v; /* owned, with what it points to */
    size_t n, cap;
    uint64_t bytes;    /* of content */
    size_t skipped;    /* messages with NUL or a bare CR, which RFC 5321 2.3.8 forbids to send */
    uint32_t *by_size; /* owned: indexes by ascending content.len; made by bench_corpus_finish */
};

/* bench_corpus_load: add every *.eml below the folder. NOTFOUND, IO, LIMIT with err. Blocks. */
enum tb_rc bench_corpus_load(struct bench_corpus *c, struct tb_io *io, const char *dir,
                             struct tb_error *err) TB_USE_RESULT;
/* bench_corpus_generate: add n messages made from the seed: the same seed, the same messages. */
enum tb_rc bench_corpus_generate(struct bench_corpus *c, uint64_t seed, uint32_t n, struct tb_error *err) TB_USE_RESULT;
/* bench_corpus_add: one message, LF or CRLF lines; counts it as skipped where it may not be sent. LIMIT: out of memory.
 */
enum tb_rc bench_corpus_add(struct bench_corpus *c, struct tb_slice raw) TB_USE_RESULT;
/* bench_corpus_finish: shuffle by the seed and index by size. */
enum tb_rc bench_corpus_finish(struct bench_corpus *c, uint64_t seed) TB_USE_RESULT;
/* bench_corpus_has: body is one of the messages behind at most 32 header fields put in front of it (trace). Cost: one
 * comparison, as a rule. */
bool bench_corpus_has(const struct bench_corpus *c, struct tb_slice body);
void bench_corpus_free(struct bench_corpus *c);

/* bench_random: the next number of a splitmix64 sequence. Reproducible, so not tb_io_random. */
uint64_t bench_random(uint64_t *state);

/* ---- measuring (measure.c) ---- */

struct bench_sample {
    uint64_t now_ns;
    uint64_t self_cpu_us;
    bool server, device; /* the figures below are there */
    uint64_t server_cpu_us;
    uint64_t server_pss_kb;
    uint32_t server_processes;
    uint64_t device_writes, device_bytes, device_flushes;
};

/*
 * bench_measure: the figures of now. The server is each --pid and --pgrep process with all its descendants: user and
 * system time, with that of children already waited for, so nothing is lost when one ends. INVALID with err: no such
 * process or device.
 */
enum tb_rc bench_measure(struct tb_io *io, const struct bench_options *o, bool memory, struct bench_sample *s,
                         struct tb_error *err) TB_USE_RESULT;

/* ---- clients (client.c) ---- */

struct bench_reply {
    struct tb_slice text;   /* without the final CRLF; the bytes of literals only if sampled */
    uint64_t literal_bytes; /* of all its literals */
    uint32_t literals;
    bool sampled; /* chosen to be checked in full */
};

enum bench_phase { BENCH_OPENING, BENCH_RESTING, BENCH_BUSY, BENCH_LEAVING, BENCH_CLOSED };

struct bench_smtp {
    uint8_t state;
    bool eight_bit, size; /* offered by the server */
    uint32_t user;        /* first recipient of the transaction */
    uint32_t recipients_done, accepted, replies;
    const struct bench_message *message;
};

struct bench_imap {
    uint8_t state;
    uint32_t tag;
    uint32_t exists;
    uint32_t *uids; /* owned: the mailbox's UIDs, read when the session opens */
    size_t uid_n, uid_cap;
    uint64_t got, bytes; /* FETCH responses of this command; content bytes in them */
};

struct bench_client {
    struct bench_thread *thread; /* borrowed */
    const struct bench_user *user;
    enum bench_phase phase;
    uint32_t index; /* among all clients of the run */
    int fd;         /* -1: none */
    bool connecting, receiving, sending;
    struct tb_op connect_op, recv_op, send_op;
    struct tb_buf out;      /* the next command, as it is written */
    struct tb_buf flying;   /* the command being sent */
    struct tb_slice queued; /* bytes to send once the send in flight is back; borrowed */
    uint64_t began_ns;
    /* the framer */
    bool literals;    /* replies may hold IMAP literals */
    struct tb_buf in; /* what has come of an unfinished reply */
    size_t text_from; /* where in `in` the text behind the last literal begins */
    uint64_t literal_left;
    struct bench_reply reply;
    union {
        struct bench_smtp smtp;
        struct bench_imap imap;
    };
};

void bench_client_open(struct bench_client *c);
/* bench_client_send: send c->out; or the bytes given, which must stay until the reply comes. */
void bench_client_send(struct bench_client *c);
void bench_client_send_bytes(struct bench_client *c, struct tb_slice bytes);
/* bench_client_ready: logged in (or greeted) and at rest. */
void bench_client_ready(struct bench_client *c);
/* bench_client_start: begin the first operation of a client at rest. */
void bench_client_start(struct bench_client *c);
/* bench_client_done: the operation ended well: messages and content bytes moved. Starts the next or rests. */
void bench_client_done(struct bench_client *c, uint64_t messages, uint64_t bytes);
/* bench_client_next: go on without counting: the operation was refused. */
void bench_client_next(struct bench_client *c);
/* bench_client_note: the server said no: count it, remember the first. */
void bench_client_note(struct bench_client *c, const char *what, struct tb_slice reply);
/* bench_client_lost: note it; the session cannot go on: close. */
void bench_client_lost(struct bench_client *c, const char *what, struct tb_slice reply);
/* bench_client_wrong: the server's answer is wrong: remember it, close. */
void bench_client_wrong(struct bench_client *c, const char *what, struct tb_slice reply);
/* bench_client_leave: QUIT or LOGOUT, then close. */
void bench_client_leave(struct bench_client *c);
/* bench_client_drop: close now. */
void bench_client_drop(struct bench_client *c);
/* bench_client_feed: bytes from the server: whole replies go to the workload. Linear; an unfinished reply is bounded.
 */
void bench_client_feed(struct bench_client *c, struct tb_slice in);

/* ---- threads (thread.c) ---- */

struct bench_result {
    uint64_t operations, messages, bytes, received;
    uint64_t refused, wrong, checked;
    uint64_t end_ns;
    struct tb_histogram latency;
    char first_error[240];
};

struct bench_timer {
    struct tb_op op;
    bool on; /* in flight */
};

struct bench_thread {
    struct bench *bench; /* borrowed */
    uint32_t index;
    pthread_t pthread;
    struct tb_io *io;             /* owned by the thread */
    struct bench_client *clients; /* owned */
    uint32_t client_n, opened, opening, open, busy;
    uint64_t turn;   /* numbers the operations: picks message and user */
    uint64_t budget; /* operations it may still begin */
    uint64_t random;
    uint64_t measured_from_ns; /* what began before, in the warm-up, does not count */
    bool told, running, measuring, stopping, leaving, parked;
    struct tb_op begin_op, measure_op, leave_op; /* posted to it by main */
    struct tb_op told_op;                        /* posted by it to main */
    struct bench_timer opening_limit, deadline, leave_limit;
    struct bench_result result;
    atomic_ullong live_messages, live_bytes, live_errors; /* for the progress line */
    struct tb_error err;
};

/* bench_thread_main: the pthread's body; user is a bench_thread. */
void *bench_thread_main(void *user);
/* bench_thread_opened: a client is ready or has failed: open the next. */
void bench_thread_opened(struct bench_thread *t);
/* bench_thread_next: may this client begin an operation now? false: it rests. */
bool bench_thread_next(struct bench_thread *t);
/* bench_thread_rested: a client went from busy to rest or closed. */
void bench_thread_rested(struct bench_thread *t);
void bench_thread_closed(struct bench_thread *t);

/* ---- the run (run.c) ---- */

struct bench {
    struct bench_options options;
    struct bench_corpus corpus;
    struct tb_io *io;             /* main's */
    struct bench_thread *threads; /* owned */
    uint32_t told;                /* threads that have reported in this phase */
    uint8_t phase;
    bool finished;
    struct bench_timer warmup, progress;
    struct bench_sample before, after;
    struct bench_result total;
    struct tb_error err;
};

/* bench_run: the whole run. OK also when answers were wrong (see total); else err says why there was none. */
enum tb_rc bench_run(struct bench *b) TB_USE_RESULT;
/* bench_told: on main's thread, when a thread reports (thread->told_op). */
void bench_told(struct tb_op *op);

/* ---- reports (report.c) ---- */
void bench_report_progress(const struct bench *b, uint64_t elapsed_ns);
void bench_report_table(const struct bench *b);
enum tb_rc bench_report_json(const struct bench *b, struct tb_error *err) TB_USE_RESULT;

/* ---- sessions and workloads ---- */

struct bench_workload {
    const char *name, *summary, *help;
    const char *operation; /* what one operation is called in reports */
    uint16_t port;         /* where none is given */
    bool imap;             /* else SMTP or LMTP */
    bool needs_corpus;
    void (*open)(struct bench_client *c);  /* before connecting: the greeting is awaited next */
    void (*reply)(struct bench_client *c); /* c->reply is complete */
    void (*begin)(struct bench_client *c); /* start one operation */
    void (*leave)(struct bench_client *c); /* put QUIT or LOGOUT into c->out */
    void (*close)(struct bench_client *c); /* free what open made; may be NULL */
};
extern const struct bench_workload bench_deliver, bench_fetch_headers, bench_fetch_bodies, bench_random_body;
extern const struct bench_workload *const bench_workloads[]; /* NULL-ended */

/* IMAP sessions (imap.c): greeting, LOGIN, SELECT, the UIDs, then ready; each workload's reply function is given
 * untagged data. */
enum { BENCH_IMAP_GREETING, BENCH_IMAP_LOGIN, BENCH_IMAP_SELECT, BENCH_IMAP_UIDS, BENCH_IMAP_READY };
void bench_imap_open(struct bench_client *c);
void bench_imap_close(struct bench_client *c);
void bench_imap_leave(struct bench_client *c);
/* bench_imap_command: send "tag text". */
void bench_imap_command(struct bench_client *c, const char *text);
/* bench_imap_common: handle the reply if it belongs to opening the session or is a failure; false: the workload's to
 * judge. */
bool bench_imap_common(struct bench_client *c);
/* bench_imap_tagged: the reply is our command's OK. */
bool bench_imap_tagged(const struct bench_client *c);
/* bench_imap_is_fetch: "* n FETCH (...)" with 0 < n. */
bool bench_imap_is_fetch(struct tb_slice text);

struct bench_fetch {
    struct tb_slice uid, flags, size, envelope, bodystructure; /* as written; ptr NULL if absent */
    struct tb_slice body;                                      /* of BODY[]: its bytes */
    bool has_body;
};
/*
 * bench_imap_parse_fetch: a whole FETCH response, literals included, into its items. false unless it is well formed to
 * its end (RFC 9051 9, message-data). Linear; nesting costs no stack.
 */
bool bench_imap_parse_fetch(struct tb_slice text, struct bench_fetch *f);
/* bench_imap_list_count: the elements of a parenthesised list; -1 if it is none or malformed. */
int bench_imap_list_count(struct tb_slice text);

#endif
