/*
 * report.c: what a person reads during and after a run, and the same as one JSON document (RFC 8259).
 *
 * Figures are quoted per message (a delivered copy, a fetched message); latencies are per operation. Main thread, at
 * rest.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/bench.h"

enum { JSON_BYTES_MAX = 1 << 20 };

static const struct {
    const char *name;
    double q;
} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

static double elapsed_s(const struct bench *b)
{
    double s = (double)(b->total.end_ns - b->before.now_ns) / 1e9;
    return s > 0 ? s : 1e-9;
}

static double per_message(const struct bench *b, uint64_t before, uint64_t after)
{
    return b->total.messages > 0 ? (double)(after - before) / (double)b->total.messages : 0;
}

void bench_report_progress(const struct bench *b, uint64_t elapsed_ns)
{
    uint64_t messages = 0, bytes = 0, errors = 0;
    for (uint32_t i = 0; i < b->options.threads; i++) {
        messages += atomic_load_explicit(&b->threads[i].live_messages, memory_order_relaxed);
        bytes += atomic_load_explicit(&b->threads[i].live_bytes, memory_order_relaxed);
        errors += atomic_load_explicit(&b->threads[i].live_errors, memory_order_relaxed);
    }
    double s = (double)elapsed_ns / 1e9;
    fprintf(stderr, "\r%4.0f s %12llu messages %10.0f/s %9.1f MB/s %llu errors ", s, (unsigned long long)messages,
            (double)messages / s, (double)bytes / s / 1e6, (unsigned long long)errors);
}

static void print_latency(const struct bench *b)
{
    const struct tb_histogram *h = &b->total.latency;
    printf("  latency ms   ");
    for (size_t i = 0; i < TB_ARRAY_LEN(quantiles); i++)
        printf(" %s %.3f ", quantiles[i].name, (double)tb_histogram_quantile(h, quantiles[i].q) / 1e6);
    printf(" max %.3f\n", (double)h->max / 1e6);
}

static void print_costs(const struct bench *b)
{
    const struct bench_sample *x = &b->before, *y = &b->after;
    double s = elapsed_s(b);
    if (y->server) {
        printf("  server CPU   %.2f us/message, %.2f cores; %u processes, PSS %.1f MB\n",
               per_message(b, x->server_cpu_us, y->server_cpu_us),
               (double)(y->server_cpu_us - x->server_cpu_us) / s / 1e6, y->server_processes,
               (double)y->server_pss_kb / 1024);
    }
    printf("  own CPU      %.2f us/message, %.2f cores\n", per_message(b, x->self_cpu_us, y->self_cpu_us),
           (double)(y->self_cpu_us - x->self_cpu_us) / s / 1e6);
    if (y->device) {
        printf("  device       %.4f flushes/message, %.4f writes/message, %.0f bytes/message\n",
               per_message(b, x->device_flushes, y->device_flushes), per_message(b, x->device_writes, y->device_writes),
               per_message(b, x->device_bytes, y->device_bytes));
    }
}

void bench_report_table(const struct bench *b)
{
    const struct bench_options *o = &b->options;
    const struct bench_result *r = &b->total;
    double s = elapsed_s(b);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%79s\r", "");
    printf("%s at %s:%u, %u connections, %u threads, %.2f s\n", o->workload->name, o->host, o->port, o->connections,
           o->threads, s);
    if (b->corpus.n > 0)
        printf("  corpus        %zu messages, mean %.0f bytes, %zu left out\n", b->corpus.n,
               (double)b->corpus.bytes / (double)b->corpus.n, b->corpus.skipped);
    printf("  %-13s %llu, %.1f/s\n", o->workload->operation, (unsigned long long)r->operations,
           (double)r->operations / s);
    printf("  messages      %llu, %.1f/s, %.2f MB/s\n", (unsigned long long)r->messages, (double)r->messages / s,
           (double)r->bytes / s / 1e6);
    print_latency(b);
    print_costs(b);
    printf("  answers       %llu checked in full, %llu refused, %llu wrong\n", (unsigned long long)r->checked,
           (unsigned long long)r->refused, (unsigned long long)r->wrong);
    if (r->first_error[0] != '\0')
        printf("  first error   %s\n", r->first_error);
}

/* ---- JSON ---- */

static void put_key(struct tb_buf *out, const char *name)
{
    if (out->len > 0 && out->ptr[out->len - 1] != '{')
        tb_buf_char(out, ',');
    tb_buf_char(out, '"');
    tb_buf_str(out, name);
    tb_buf_str(out, "\":");
}

static void put_number(struct tb_buf *out, const char *name, double v)
{
    char text[64];
    snprintf(text, sizeof text, "%.6g", v);
    put_key(out, name);
    tb_buf_str(out, text);
}

static void put_count(struct tb_buf *out, const char *name, uint64_t v)
{
    put_key(out, name);
    tb_buf_u64(out, v);
}

/* Control characters as \u00XX; what is not ASCII too, so that the document is valid whatever the bytes were. */
static void put_string(struct tb_buf *out, const char *text)
{
    tb_buf_char(out, '"');
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[8];
        if (c == '"' || c == '\\')
            tb_buf_char(out, '\\');
        if (c >= 0x20 && c < 0x7f) {
            tb_buf_char(out, *text);
            continue;
        }
        snprintf(escape, sizeof escape, "\\u%04x", c);
        tb_buf_str(out, escape);
    }
    tb_buf_char(out, '"');
}

static void put_text(struct tb_buf *out, const char *name, const char *text)
{
    put_key(out, name);
    put_string(out, text);
}

static void put_environment(struct tb_buf *out, const struct bench *b)
{
    const struct bench_options *o = &b->options;
    struct utsname host;
    put_text(out, "workload", o->workload->name);
    put_text(out, "label", o->label != NULL ? o->label : "");
    put_text(out, "host", o->host);
    put_count(out, "port", o->port);
    put_count(out, "connections", o->connections);
    put_count(out, "threads", o->threads);
    put_count(out, "recipients", o->recipients);
    put_key(out, "command");
    tb_buf_char(out, '[');
    for (int i = 0; i < o->argc; i++) {
        if (i > 0)
            tb_buf_char(out, ',');
        put_string(out, i > 0 && strcmp(o->argv[i - 1], "--password") == 0 ? "..." : o->argv[i]);
    }
    tb_buf_char(out, ']');
    if (uname(&host) == 0) {
        put_text(out, "kernel", host.release);
        put_text(out, "machine", host.machine);
    }
    put_count(out, "cores", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    put_count(out, "corpus_messages", b->corpus.n);
    put_count(out, "corpus_bytes", b->corpus.bytes);
}

static void put_results(struct tb_buf *out, const struct bench *b)
{
    const struct bench_result *r = &b->total;
    double s = elapsed_s(b);
    put_number(out, "seconds", s);
    put_count(out, "operations", r->operations);
    put_count(out, "messages", r->messages);
    put_count(out, "bytes", r->bytes);
    put_number(out, "operations_per_s", (double)r->operations / s);
    put_number(out, "messages_per_s", (double)r->messages / s);
    put_number(out, "mb_per_s", (double)r->bytes / s / 1e6);
    put_count(out, "checked", r->checked);
    put_count(out, "refused", r->refused);
    put_count(out, "wrong", r->wrong);
    put_text(out, "first_error", r->first_error);
    put_key(out, "latency_ms");
    tb_buf_char(out, '{');
    for (size_t i = 0; i < TB_ARRAY_LEN(quantiles); i++)
        put_number(out, quantiles[i].name, (double)tb_histogram_quantile(&r->latency, quantiles[i].q) / 1e6);
    put_number(out, "max", (double)r->latency.max / 1e6);
    put_number(out, "mean", r->latency.count > 0 ? (double)r->latency.sum / (double)r->latency.count / 1e6 : 0);
    tb_buf_char(out, '}');
}

static void put_costs(struct tb_buf *out, const struct bench *b)
{
    const struct bench_sample *x = &b->before, *y = &b->after;
    put_number(out, "own_cpu_us_per_message", per_message(b, x->self_cpu_us, y->self_cpu_us));
    if (y->server) {
        put_number(out, "server_cpu_us_per_message", per_message(b, x->server_cpu_us, y->server_cpu_us));
        put_number(out, "server_cores", (double)(y->server_cpu_us - x->server_cpu_us) / elapsed_s(b) / 1e6);
        put_count(out, "server_processes", y->server_processes);
        put_count(out, "server_pss_kb", y->server_pss_kb);
    }
    if (y->device) {
        put_text(out, "device", b->options.device);
        put_number(out, "device_flushes_per_message", per_message(b, x->device_flushes, y->device_flushes));
        put_number(out, "device_writes_per_message", per_message(b, x->device_writes, y->device_writes));
        put_number(out, "device_bytes_per_message", per_message(b, x->device_bytes, y->device_bytes));
    }
}

static enum tb_rc write_file(struct tb_io *io, const char *path, struct tb_slice text, struct tb_error *err)
{
    (void)tb_io_unlink(io, path); /* an older report, if there is one */
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
    if (fd < 0)
        return tb_error_set(err, TB_IO, -fd, "cannot write %s", path);
    int64_t n = tb_io_pwrite(io, fd, text.ptr, text.len, 0);
    int closed = tb_io_file_close(io, fd);
    if (n != (int64_t)text.len || closed < 0)
        return tb_error_set(err, TB_IO, n < 0 ? (int)-n : EIO, "cannot write %s", path);
    return TB_OK;
}

enum tb_rc bench_report_json(const struct bench *b, struct tb_error *err)
{
    struct tb_buf out;
    tb_buf_init(&out, JSON_BYTES_MAX);
    tb_buf_char(&out, '{');
    put_environment(&out, b);
    put_results(&out, b);
    put_costs(&out, b);
    tb_buf_str(&out, "}\n");
    enum tb_rc rc = TB_OK;
    if (out.failed)
        rc = tb_error_set(err, TB_LIMIT, ENOMEM, "the report does not fit");
    else if (strcmp(b->options.json, "-") == 0)
        rc = fwrite(out.ptr, 1, out.len, stdout) == out.len
                 ? TB_OK
                 : tb_error_set(err, TB_IO, errno, "cannot write the report");
    else
        rc = write_file(b->io, b->options.json, tb_buf_all(&out), err);
    tb_buf_free(&out);
    return rc;
}
