/*
 * print.c: results for people and for scripts: aligned columns, JSON lines, sizes.
 */
#include <stdlib.h>

#include "tools/tambo.h"

enum { COLUMNS_MAX = 16 };

void print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_COMPACT);
    putchar('\n');
}

/* width: characters of UTF-8 text, one column each. */
static int width(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* cell: one value as text; numbers in decimal, lists with blanks between, control bytes made harmless. Heap. */
static char *cell(const json_t *v)
{
    char *text = NULL;
    struct tb_buf b;

    tb_buf_init(&b, 1 << 20);
    if (json_is_integer(v)) {
        tb_buf_u64(&b, (uint64_t)json_integer_value(v));
    } else if (json_is_real(v)) {
        char tenths[64];
        (void)snprintf(tenths, sizeof(tenths), "%.1f", json_real_value(v));
        tb_buf_str(&b, tenths);
    } else if (json_is_boolean(v)) {
        tb_buf_str(&b, json_is_true(v) ? "yes" : "no");
    } else if (json_is_string(v)) {
        for (const char *p = json_string_value(v); *p; p++)
            tb_buf_char(&b, (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p);
    } else {
        const json_t *item;
        size_t i;
        json_array_foreach (v, i, item) {
            tb_buf_str(&b, i ? " " : "");
            tb_buf_str(&b, json_string_value(item) ? json_string_value(item) : "");
        }
    }
    tb_buf_char(&b, '\0');
    text = b.failed ? strdup("?") : strdup(b.ptr);
    tb_buf_free(&b);
    return text;
}

void print_table(const struct tool *t, const json_t *rows, const char *const *keys, const char *const *heads)
{
    int wide[COLUMNS_MAX] = {0};
    size_t columns = 0, i;
    const json_t *row;

    if (t->json) {
        json_array_foreach (rows, i, row)
            print_json(row);
        return;
    }
    for (; keys[columns] && columns < COLUMNS_MAX; columns++)
        wide[columns] = width(heads[columns]);
    for (int pass = 0; pass < 2; pass++) { /* measure, then print */
        for (size_t c = 0; pass == 1 && c < columns; c++)
            printf("%s%-*s", c ? "  " : "", c + 1 < columns ? wide[c] : 0, heads[c]);
        if (pass == 1)
            putchar('\n');
        json_array_foreach (rows, i, row) {
            for (size_t c = 0; c < columns; c++) {
                const json_t *v = json_object_get(row, keys[c]);
                char *text = cell(v);
                int w = text ? width(text) : 0;
                if (pass == 0 && w > wide[c])
                    wide[c] = w;
                else if (pass == 1 && json_is_integer(v))
                    printf("%s%*s%s", c ? "  " : "", wide[c] - w, "", text);
                else if (pass == 1)
                    printf("%s%s%*s", c ? "  " : "", text ? text : "?", c + 1 < columns ? wide[c] - w : 0, "");
                free(text);
            }
            if (pass == 1)
                putchar('\n');
        }
    }
}

const char *print_bytes(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    size_t u = 0;

    while (v >= 1024 && u + 1 < TB_ARRAY_LEN(units)) {
        v /= 1024;
        u++;
    }
    snprintf(text, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return text;
}
