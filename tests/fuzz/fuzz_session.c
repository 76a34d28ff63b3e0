/*
 * fuzz_session.c: an IMAP session on a server in memory: commands run, not only parsed: SEARCH, sets, FETCH sections,
 * APPEND, names. The first byte: how far it is already (greeted, logged in, INBOX selected), and how the bytes are cut.
 */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const struct tb_slice begun[] = {
        {"", 0},
        {"a LOGIN ann secret\r\n", 20},
        {"a LOGIN ann secret\r\nb SELECT INBOX\r\n", 36},
        {"a LOGIN bob secret\r\nb EXAMINE INBOX\r\n", 37},
    };
    struct tb_buf out;
    if (n == 0)
        return 0;
    (void)fuzz_world();
    fuzz_talk(PORT_IMAP, begun[bytes[0] & 3], tb_slice(bytes + 1, n - 1), bytes[0] >> 2 & 31, &out);
    TB_ASSERT(out.len > 4 && memcmp(out.ptr, "* OK", 4) == 0);
    tb_buf_free(&out);
    return 0;
}
