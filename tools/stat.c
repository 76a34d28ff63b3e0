/*
 * stat.c: tambo stat: the store in numbers, the total and each shard.
 */
#include "tools/tambo.h"

enum { SHARDS_SHOWN = 8 };

static const struct {
    const char *key, *label;
    bool bytes;
} rows[] = {
    {"accounts", "accounts", false},
    {"mailboxes", "mailboxes", false},
    {"messages", "messages", false},
    {"raw_bytes", "size of the messages", true},
    {"stored_raw_bytes", "stored once", true},
    {"shared_raw_bytes", "saved by deduplication", true},
    {"log_used_bytes", "log in use", true},
    {"log_file_bytes", "log files", true},
    {"index_used_bytes", "index in use", true},
    {"index_file_bytes", "index files", true},
    {"ratio", "raw/disk", false},
    {"quarantined", "damaged messages", false},
    {"gc_dead_bytes", "dead in sealed segments", true},
    {"gc_moved_bytes", "moved by GC since start", true},
    {"gc_freed_segments", "segments freed", false},
    {"gc", "GC", false},
    {"scrub_damage", "damage found by scrubs", false},
    {"deliveries", "deliveries since start", false},
    {"records", "records since start", false},
    {"log_frames", "log frames since start", false},
    {"log_writes", "log writes since start", false},
    {"checkpoints", "checkpoints since start", false},
};

static void print_cell(const json_t *column, size_t row)
{
    const json_t *v = json_object_get(column, rows[row].key);
    char text[32] = "-";

    if (json_is_real(v))
        snprintf(text, sizeof(text), "%.2f", json_real_value(v));
    else if (json_is_integer(v) && rows[row].bytes)
        print_bytes((uint64_t)json_integer_value(v), text);
    else if (json_is_integer(v))
        snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(v));
    else if (json_is_string(v))
        snprintf(text, sizeof(text), "%.20s", json_string_value(v));
    printf("  %12s", text);
}

/* print_troubles: every shard that is not serving, and why. */
static void print_troubles(const json_t *shards)
{
    const json_t *o;
    size_t i;

    json_array_foreach (shards, i, o) {
        const char *state = json_string_value(json_object_get(o, "state"));
        const char *reason = json_string_value(json_object_get(o, "reason"));
        if (state && strcmp(state, "serving") != 0)
            printf("\nshard %zu is %s: %s\n", i, state, reason ? reason : "no reason given");
    }
}

static void print_people(const json_t *result)
{
    const json_t *shards = json_object_get(result, "shards");
    size_t n = json_array_size(shards), shown = n > 1 && n <= SHARDS_SHOWN ? n : 0;

    printf("version %s, store format %lld, io %s, workers %lld, shards %zu\n\n%-24s  %12s",
           json_string_value(json_object_get(result, "version")),
           (long long)json_integer_value(json_object_get(result, "format")),
           json_string_value(json_object_get(result, "io")),
           (long long)json_integer_value(json_object_get(result, "workers")), n, "", "total");
    for (size_t i = 0; i < shown; i++)
        printf("  %8s %3zu", "shard", i);
    putchar('\n');
    for (size_t row = 0; row < TB_ARRAY_LEN(rows); row++) {
        printf("%-24s", rows[row].label);
        print_cell(json_object_get(result, "total"), row);
        for (size_t i = 0; i < shown; i++)
            print_cell(json_array_get(shards, i), row);
        putchar('\n');
    }
    print_troubles(shards);
}

void stat_show(struct tool *t)
{
    json_t *result = client_call(t, "stat", json_object());

    if (result && t->json)
        print_json(result);
    else if (result)
        print_people(result);
    json_decref(result);
}
