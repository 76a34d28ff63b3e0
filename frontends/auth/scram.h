/*
 * scram.h: inside frontends/auth: SCRAM-SHA-256's messages and keys; bytes in, bytes out.
 */
#ifndef TB_SCRAM_H
#define TB_SCRAM_H

#include <tambo/base.h>

enum {
    TB_SCRAM_KEY_BYTES = 32,
    TB_SCRAM_SALT_BYTES = 16,
    TB_SCRAM_SALT_MAX = 64,
    TB_SCRAM_ROUNDS = 32768, /* of what we make. RFC 7677 4: at least 4096; the client's work at each login too */
    TB_SCRAM_ROUNDS_MAX = 10000000
};

/* What a server keeps of a password (RFC 5802 3). */
struct tb_scram_keys {
    uint32_t rounds;
    size_t salt_len;
    uint8_t salt[TB_SCRAM_SALT_MAX];
    uint8_t stored[TB_SCRAM_KEY_BYTES], server[TB_SCRAM_KEY_BYTES];
};
/* tb_scram_keys_read: "rounds,salt,StoredKey,ServerKey", the last three in base64, as Dovecot keeps it behind
 * {SCRAM-SHA-256}. */
bool tb_scram_keys_read(struct tb_slice text, struct tb_scram_keys *out);
void tb_scram_keys_print(const struct tb_scram_keys *k, struct tb_buf *out);
/* tb_scram_keys_derive: StoredKey and ServerKey of a password under k's salt and rounds; slow. Normalised with
 * SASLprep, or taken as it is where that does not allow it. False without memory. Any thread. */
bool tb_scram_keys_derive(struct tb_scram_keys *k, struct tb_slice password);
/* tb_scram_keys_derive_raw: of the password's own bytes, as servers that know nothing of SASLprep have made theirs. */
bool tb_scram_keys_derive_raw(struct tb_scram_keys *k, struct tb_slice password);

/* client-first-message: slices of the message. */
struct tb_scram_first {
    char flag;                   /* 'n' no binding, 'y' the client could, 'p' binding */
    struct tb_slice binding;     /* 'p': its name */
    struct tb_slice gs2, bare;   /* gs2-header with its last comma; what is behind it */
    struct tb_slice authzid;     /* still escaped; empty: none */
    struct tb_slice name, nonce; /* name still escaped */
};
/* tb_scram_gs2_read: a gs2-header (RFC 5801 4, without its nonstandard flag) off the front of *rest, behind which there
 * is more. */
bool tb_scram_gs2_read(struct tb_slice *rest, struct tb_scram_first *out);
bool tb_scram_first_read(struct tb_slice message, struct tb_scram_first *out);
/* tb_scram_name: a saslname without its escapes; false: malformed, or over max bytes. *len excludes the NUL behind. */
bool tb_scram_name(struct tb_slice escaped, size_t max, char *out, size_t *len);

/* client-final-message */
struct tb_scram_final {
    struct tb_slice binding; /* base64 */
    struct tb_slice nonce;
    struct tb_slice bare; /* client-final-message-without-proof */
    uint8_t proof[TB_SCRAM_KEY_BYTES];
};
bool tb_scram_final_read(struct tb_slice message, struct tb_scram_final *out);

/* tb_scram_check: does the proof of this AuthMessage come from who has the password? verifier: ServerSignature,
 * whatever the answer. */
bool tb_scram_check(const struct tb_scram_keys *k, struct tb_slice auth_message,
                    const uint8_t proof[TB_SCRAM_KEY_BYTES], uint8_t verifier[TB_SCRAM_KEY_BYTES]);

#endif
