/*
 * fuzz_pop3.c: a POP3 session on a server in memory. The first byte: logged in or not, and how the bytes are cut. What
 * is said are lines; the server survives and lets the connection go.
 */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_buf out;
    if (n == 0)
        return 0;
    (void)fuzz_world();
    struct tb_slice login = bytes[0] & 1 ? TB_SLICE("USER ann\r\nPASS secret\r\n") : TB_SLICE("");
    fuzz_talk(PORT_POP3, login, tb_slice(bytes + 1, n - 1), bytes[0] >> 1 & 31, &out);
    TB_ASSERT(out.len > 3 && memcmp(out.ptr, "+OK", 3) == 0);
    fuzz_lines(&out);
    return 0;
}
