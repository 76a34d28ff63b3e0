/*
 * table.c: every key of the configuration file, its default and its meaning, once.
 *
 * It must never hold a value that only this machine has: what a fresh machine cannot know is worked out in config.c.
 * Thread: any; read-only. RFC 9051 5.4, RFC 1939 3 and RFC 5321 4.5.3.2 for the idle times, RFC 5321 4.5.3.1.8 for
 * recipients.
 */
#include "frontends/config/table.h"

#define AT(field) offsetof(struct tb_config, field)
#define MIB (UINT64_C(1) << 20)

/* One row a key, its text below it. */
/* clang-format off */
const struct config_key config_keys[] = {
    {"hostname", CONFIG_STRING, AT(hostname), "", 0, 255, {0}, false,
     "Our name in greetings and Received fields. Empty: the machine's own name."},
    {"default_domain", CONFIG_STRING, AT(default_domain), "", 0, 255, {0}, false,
     "user@DOMAIN and plain user are the same account. Empty: the hostname."},
    {"local_domains", CONFIG_LIST, AT(local_domains), "", 0, 255, {0}, false,
     "Further domains taken for local; an account user@domain makes its own domain local."},
    {"postmaster", CONFIG_STRING, AT(postmaster), "postmaster", 0, 255, {0}, false,
     "The account that gets the mail for postmaster. While it does not exist that mail is refused."},
    {"admins", CONFIG_LIST, AT(admins), "", 0, 255, {0}, false,
     "Accounts that may see and set the limits of all accounts by IMAP (SETQUOTA)."},
    {"store", CONFIG_PATH, AT(store), "store", 1, 4000, {0}, false,
     "The folder of the store."},
    {"control", CONFIG_PATH, AT(control), "control.sock", 0, 4000, {0}, false,
     "The socket that tambo(1) talks to; only the daemon's own user may. Empty: none."},
    {"tls_certificate", CONFIG_PATH, AT(tls_certificate), "", 0, 4000, {0}, true,
     "PEM file with the certificate and its chain. Empty: no TLS. Read again at SIGHUP."},
    {"tls_key", CONFIG_PATH, AT(tls_key), "", 0, 4000, {0}, true,
     "PEM file with the certificate's key."},
    {"plain_login", CONFIG_BOOL, AT(plain_login), "loopback", 0, 0, {"loopback", "always"}, false,
     "Where passwords are taken without TLS: from this machine only, or from everywhere."},
    {"password_scheme", CONFIG_WORD, AT(password_scheme), "SCRAM-SHA-256", 0, 0,
     {"SCRAM-SHA-256", "ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT", "PLAIN"}, false,
     "How new passwords are stored. Clients can use SCRAM only with SCRAM-SHA-256 and PLAIN."},
    {"password_upgrade", CONFIG_BOOL, AT(password_upgrade), "false", 0, 0, {"false", "true"}, false,
     "Whether a password that is stored in another way is stored anew when somebody has logged in with it."},
    {"scram", CONFIG_WORD, AT(scram), "auto", 0, 0, {"auto", "always", "never"}, false,
     "When SCRAM is offered. auto: when every account's stored password allows it."},
    {"master_users", CONFIG_LIST, AT(master_users), "", 0, 255, {0}, false,
     "Accounts whose password opens every other account, when named as SASL's authorization identity."},
    {"message_bytes_max", CONFIG_BYTES, AT(message_bytes_max), "100M", 64 << 10, 1024 * MIB, {0}, false,
     "The largest message taken, by every protocol."},
    {"recipients_max", CONFIG_NUMBER, AT(recipients_max), "1000", 1, 2000, {0}, false,
     "Recipients of one mail transaction. RFC 5321 asks for at least 100."},
    {"connections_max", CONFIG_NUMBER, AT(connections_max), "20000", 1, 1000000, {0}, false,
     "Connections open at once on one worker; more are turned away politely."},
    {"pre_auth_s", CONFIG_SECONDS, AT(pre_auth_s), "60", 1, 3600, {0}, false,
     "Time from connect to login, whatever is sent meanwhile."},
    {"imap_idle_s", CONFIG_SECONDS, AT(imap_idle_s), "1800", 1, 86400, {0}, false,
     "Silence after which an IMAP session ends. RFC 9051 asks for at least 30 minutes."},
    {"pop3_idle_s", CONFIG_SECONDS, AT(pop3_idle_s), "600", 1, 86400, {0}, false,
     "Silence after which a POP3 session ends. RFC 1939 asks for at least 10 minutes."},
    {"smtp_idle_s", CONFIG_SECONDS, AT(smtp_idle_s), "300", 1, 86400, {0}, false,
     "Silence after which an SMTP or LMTP session ends. RFC 5321 asks for at least 5 minutes."},
    {"quota_full", CONFIG_BOOL, AT(quota_reject), "defer", 0, 0, {"defer", "reject"}, false,
     "What mail for an account over its quota is answered: 452, so that it is tried again; or 552, for good."},
    {"trash_days", CONFIG_NUMBER, AT(trash_days), "7", 0, 3650, {0}, false,
     "Days that deleted mail is kept on disk. 0: its space is free at once."},
    {"dedup", CONFIG_BOOL, AT(dedup), "true", 0, 0, {"false", "true"}, false,
     "Whether a body of 8 KiB or more that an account has already is stored only once."},
    {"retention_trash_days", CONFIG_NUMBER, AT(retention_trash_days), "0", 0, 36500, {0}, false,
     "Days after which messages are expunged from mailboxes with the special use \\Trash. 0: never."},
    {"retention_junk_days", CONFIG_NUMBER, AT(retention_junk_days), "0", 0, 36500, {0}, false,
     "The same for \\Junk."},
    {"workers", CONFIG_NUMBER, AT(workers), "0", 0, 256, {0}, false,
     "Worker threads. 0: one a core, at most one a shard of the store."},
    {"io", CONFIG_WORD, AT(io), "auto", 0, 0, {"auto", "uring", "posix"}, false,
     "How to talk to the kernel: io_uring, plain system calls, or whichever is there."},
    {"checkpoint_ms", CONFIG_MS, AT(checkpoint_ms), "5000", 100, 3600000, {0}, false,
     "The longest time between two checkpoints of the index while it changes."},
    {"checkpoint_log_bytes", CONFIG_BYTES, AT(checkpoint_log_bytes), "32M", MIB, 1024 * MIB, {0}, false,
     "Log written since a checkpoint that makes the next one due; bounds the replay after a crash."},
    {"index_copy_hours", CONFIG_NUMBER, AT(index_copy_hours), "24", 0, 8760, {0}, false,
     "The age at which a shard's index is copied anew, if anything changed. 0: not for its age."},
    {"index_copy_log_bytes", CONFIG_BYTES, AT(index_copy_log_bytes), "1G", MIB, 1024 * 1024 * MIB, {0}, false,
     "Log written since the newest copy of the index that makes another one due."},
    {"gc_rate", CONFIG_BYTES, AT(gc_rate), "8M", 64 << 10, 1024 * MIB, {0}, false,
     "Bytes a second that one shard's garbage collection reads and writes. Short of space it does not wait."},
    {"gc_min_dead", CONFIG_NUMBER, AT(gc_min_dead), "40", 1, 100, {0}, false,
     "Percent of a log segment that must be dead before what is left in it is moved. 100: all of it."},
    {"scrub_days", CONFIG_NUMBER, AT(scrub_days), "14", 0, 3650, {0}, false,
     "Everything that is stored is read and verified within so many days. 0: never by itself."},
    {"log_level", CONFIG_WORD, AT(log_level), "info", 0, 0, {"error", "warn", "info", "debug"}, true,
     "The least important lines that are logged."},
};
/* clang-format on */
const size_t config_keys_n = TB_ARRAY_LEN(config_keys);
