/*
 * gc.c: tambo gc: give space back now, and say how it goes.
 */
#include <unistd.h>

#include "tools/tambo.h"

static int64_t number(const json_t *v, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(v, key));
}

static void progress(const json_t *v, int64_t moved, int64_t freed)
{
    char text[32];

    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s moved, %lld segments freed ",
                print_bytes((uint64_t)(number(v, "moved_bytes") - moved), text),
                (long long)(number(v, "freed_segments") - freed));
}

/* print_waiting: what could not be freed yet, and for whose sake. */
static void print_waiting(const json_t *v)
{
    json_t *holders = json_object_get(v, "waiting_for"), *name;
    size_t i;

    printf(", %lld segments more are free when nothing needs them any more", (long long)number(v, "waiting_segments"));
    json_array_foreach (holders, i, name)
        printf("%s%s", i == 0 ? " (now: " : ", ", json_string_value(name));
    if (json_array_size(holders) > 0)
        putchar(')');
}

static void print_people(const json_t *v, int64_t moved, int64_t freed, int64_t used)
{
    char a[32], b[32], c[32];

    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    printf("%s moved, %lld segments freed, log in use %s -> %s",
           print_bytes((uint64_t)(number(v, "moved_bytes") - moved), a),
           (long long)(number(v, "freed_segments") - freed), print_bytes((uint64_t)used, b),
           print_bytes((uint64_t)number(v, "log_used_bytes"), c));
    if (number(v, "waiting_segments") > 0)
        print_waiting(v);
    putchar('\n');
    if (number(v, "unreadable") > 0)
        fprintf(stderr, "tambo: %lld stored pieces cannot be read; see the log, and run tambo check\n",
                (long long)number(v, "unreadable"));
}

void gc_now(struct tool *t)
{
    json_t *v = client_call(t, "gc", json_object());
    int64_t moved = number(v, "moved_bytes"), freed = number(v, "freed_segments"), used = number(v, "log_used_bytes");
    bool all = t->given & OPT_ALL;

    if (!v)
        return;
    json_decref(v);
    v = client_call(t, "gc", json_pack("{s:b, s:b}", "start", 1, "all", all));
    while (v && json_is_true(json_object_get(v, "running"))) {
        progress(v, moved, freed);
        json_decref(v);
        v = client_call(t, "gc", json_object());
    }
    if (v && t->json)
        print_json(v);
    else if (v)
        print_people(v, moved, freed, used);
    json_decref(v);
}
