/*
 * config.h: the configuration file (libconfuse), one table of keys. The only folder that includes <confuse.h>.
 */
#ifndef TB_CONFIG_H
#define TB_CONFIG_H

#include <tambo/base.h>

#define TB_VERSION "0.1.0"

enum tb_listen_tls { TB_LISTEN_PLAIN, TB_LISTEN_STARTTLS, TB_LISTEN_TLS };
struct tb_config_listen {
    char *protocol; /* imap pop3 smtp submission lmtp */
    char *address;  /* 127.0.0.1, ::1, unix:/path */
    uint16_t port;
    enum tb_listen_tls tls;
    int line; /* of its block's end in the file; 0: a default */
};
struct tb_config {
    char *path;           /* of the file */
    char *hostname;       /* our name in greetings and trace fields */
    char *default_domain; /* user@default_domain and user are the same account */
    char **local_domains; /* further domains taken for local at RCPT, NULL-ended; accounts with @domain make theirs
                             local too */
    char **admins;        /* accounts whose IMAP sessions may set quotas, NULL-ended */
    char *postmaster;     /* account that gets postmaster's mail */
    char *store;          /* folder */
    char *control;        /* path of the control socket; "" = none */
    char *tls_certificate, *tls_key; /* paths of PEM files; both "" = no TLS */
    char *tls_client_ca;             /* path of a PEM file; "": no certificates of clients */
    char *tls_client_name;           /* "email", "cn" */
    char *io;                        /* "auto", "uring", "posix" */
    char *log_level;                 /* error warn info debug */
    uint32_t workers;                /* 0: one per core, at most the store's shards */
    uint64_t message_bytes_max;
    char *plain_login;                                       /* "loopback", "always", "never" */
    char *password_scheme;                                   /* "SCRAM-SHA-256" ...: of new secrets */
    bool password_upgrade;                                   /* "false" or "true" */
    char *scram;                                             /* "auto", "always", "never" */
    bool scram_plus;                                         /* "false" or "true" */
    uint32_t login_failures_account, login_failures_network; /* a minute; 0: as many as come */
    char **master_users;                                     /* accounts that may act for all others, NULL-ended */
    char *oauth_jwks;                                        /* path; "": no tokens */
    char *oauth_issuer, *oauth_audience, *oauth_claim;
    uint32_t connections_max;
    uint32_t imap_idle_s, imap_progress_s, pop3_idle_s, smtp_idle_s, pre_auth_s;
    uint32_t imap_message_limit, imap_save_limit; /* messages a command; 0: any number */
    uint32_t recipients_max;
    uint32_t trash_days;
    uint32_t retention_trash_days, retention_junk_days;
    bool quota_reject; /* "defer" or "reject": the answer to mail for an account over its quota */
    bool imap_unauthenticate;
    bool dedup; /* "false" or "true" */
    uint32_t checkpoint_ms;
    uint64_t checkpoint_log_bytes;
    uint32_t index_copy_hours;
    uint64_t index_copy_log_bytes;
    uint64_t gc_rate;
    uint32_t gc_min_dead;
    uint32_t backup_horizon_hours;
    uint32_t scrub_days;
    struct tb_config_listen *listen;
    size_t listen_n;
};
/*
 * tb_config_load: INVALID with err = "file:line: reason" (unknown keys get "did you mean"). Relative paths are taken
 * from the file's folder. Blocks; start-up and SIGHUP only, one thread at a time (libconfuse's scanner is one for the
 * process).
 */
enum tb_rc tb_config_load(const char *path, struct tb_config **out, struct tb_error *err) TB_USE_RESULT;
void tb_config_free(struct tb_config *c);

/* One key as it stands: for `config dump`, for reload and for the manual page. */
struct tb_config_item {
    const char *key, *type, *fallback, *doc; /* static storage; fallback: the value when the file has none */
    const char *value;                       /* as the file would say it; valid during the call */
    bool is_default;
    bool restart; /* a change needs a restart; false: SIGHUP is enough */
};
/* tb_config_each: every key but the listen blocks, in the table's order. */
void tb_config_each(const struct tb_config *c, void (*each)(void *user, const struct tb_config_item *item), void *user);
/* tb_config_changes: keys whose values differ, item being b's; the listen blocks count as one key "listen" with value
 * "". */
void tb_config_changes(const struct tb_config *a, const struct tb_config *b,
                       void (*each)(void *user, const struct tb_config_item *item), void *user);
/* tb_config_tls_word: "none", "starttls" or "tls", as a listen block says it. */
const char *tb_config_tls_word(enum tb_listen_tls tls);

/* tb_config_write_default: the text `tambo init` writes, every key with its one-line explanation. */
void tb_config_write_default(const char *dir, const char *hostname, uint32_t port_offset, struct tb_buf *out);

#endif
