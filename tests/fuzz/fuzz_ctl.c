/*
 * fuzz_ctl.c: lines of JSON on the control socket of a server in memory: every answer is one line of JSON, and a line
 * of a passwd-file read as an import does.
 */
#include "world.h"

#include "frontends/auth/auth.h"
#include "frontends/ctl/verbs.h"

static void passwd(struct tb_slice line)
{
    struct tb_slice name;
    char secret[TB_SECRET_MAX + 1];
    if (ctl_passwd_line(line, &name, secret) != NULL)
        return;
    TB_ASSERT(name.len > 0 && name.len <= TB_NAME_MAX && name.ptr >= line.ptr &&
              name.ptr + name.len <= line.ptr + line.len && strnlen(secret, sizeof(secret)) < sizeof(secret));
    TB_ASSERT(secret[0] == '\0' || tb_secret_known(secret));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_buf out;
    if (n == 0)
        return 0;
    passwd(tb_slice(bytes + 1, n - 1));
    (void)fuzz_world();
    fuzz_talk(PORT_CTL, TB_SLICE(""), tb_slice(bytes + 1, n - 1), bytes[0], &out);
    for (size_t at = 0; at < out.len;) {
        const char *lf = memchr(out.ptr + at, '\n', out.len - at);
        TB_ASSERT(lf != NULL);
        json_t *v = json_loadb(out.ptr + at, (size_t)(lf - out.ptr) - at, 0, NULL);
        TB_ASSERT(json_is_boolean(json_object_get(v, "ok")));
        json_decref(v);
        at = (size_t)(lf + 1 - out.ptr);
    }
    tb_buf_free(&out);
    return 0;
}
