/*
 * fuzz_delivery.c: LMTP, SMTP and submission sessions on a server in memory, BDAT, DATA and AUTH with them. The first
 * byte chooses the protocol, whether a mail transaction has begun already, and how the bytes are cut.
 */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint16_t port[] = {PORT_LMTP, PORT_SMTP, PORT_SUBMISSION, PORT_LMTP};
    static const struct tb_slice begun[] = {
        {"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann>\r\nRCPT TO:<bob>\r\n", 52},
        {"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann>\r\n", 41},
        {"EHLO x\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n", 38},
        {"LHLO x\r\n", 8},
    };
    struct tb_buf out;
    if (n == 0)
        return 0;
    (void)fuzz_world();
    unsigned which = bytes[0] & 3;
    struct tb_slice before = bytes[0] & 4 ? begun[which] : TB_SLICE("");
    fuzz_talk(port[which], before, tb_slice(bytes + 1, n - 1), bytes[0] >> 3, &out);
    TB_ASSERT(out.len > 3 && memcmp(out.ptr, "220", 3) == 0);
    fuzz_lines(&out);
    return 0;
}
