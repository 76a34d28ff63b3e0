/*
 * verbs.c: the one table of verbs, the one table of capabilities, and the verbs too small for a file of their own.
 *
 * A new verb: its dialogue in tests/proto/imap, a row here, a parse function, a run function. A row says in
 * which states the verb may come, and what it means for sequence numbers: without VERB_SHIFTS no EXPUNGE
 * response comes before its tagged reply (RFC 3501 7.4.1: not during FETCH, STORE and SEARCH; UID forms may,
 * RFC 9051 7.5.1).
 * Thread: the connection's owner; the parse functions: any. RFC 3501 6; 2971 (ID); 2342 (NAMESPACE).
 */
#include "imap_session.h"

enum {
    ANY = IMAP_NOT_AUTHENTICATED | IMAP_AUTHENTICATED | IMAP_SELECTED,
    OUT = IMAP_NOT_AUTHENTICATED,
    IN = IMAP_AUTHENTICATED | IMAP_SELECTED,
    SEL = IMAP_SELECTED
};

static const struct imap_verb verbs[] = {
    {"APPEND", IN, VERB_SHIFTS | VERB_CHANGES, imap_parse_append, imap_run_append},
    {"AUTHENTICATE", OUT, VERB_QUIET, imap_parse_authenticate, imap_run_authenticate},
    {"CANCELUPDATE", SEL, VERB_SHIFTS, imap_parse_cancelupdate, imap_run_cancelupdate},
    {"CAPABILITY", ANY, VERB_SHIFTS, imap_parse_none, imap_run_capability},
    {"CHECK", SEL, VERB_SHIFTS, imap_parse_none, imap_run_noop},
    {"CLOSE", SEL, VERB_QUIET, imap_parse_none, imap_run_close},
    {"COMPRESS", IN, VERB_SHIFTS, imap_parse_compress, imap_run_compress},
    {"COPY", SEL, VERB_SEQ | VERB_CHANGES, imap_parse_copy, imap_run_copy},
    {"CREATE", IN, VERB_SHIFTS, imap_parse_create, imap_run_create},
    {"DELETE", IN, VERB_SHIFTS, imap_parse_one_mailbox, imap_run_delete},
    {"DELETEACL", IN, VERB_SHIFTS, imap_parse_acl, imap_run_deleteacl},
    {"ENABLE", IN, VERB_SHIFTS, imap_parse_enable, imap_run_enable},
    {"ESEARCH", IN, VERB_UID | VERB_SHIFTS | VERB_LOOK, imap_parse_esearch, imap_run_esearch},
    {"EXAMINE", IN, VERB_QUIET, imap_parse_select, imap_run_examine},
    {"EXPUNGE", SEL, VERB_SHIFTS | VERB_CHANGES, imap_parse_none, imap_run_expunge},
    {"FETCH", SEL, VERB_SEQ, imap_parse_fetch, imap_run_fetch},
    {"GETACL", IN, VERB_SHIFTS, imap_parse_acl, imap_run_getacl},
    {"GETMETADATA", IN, VERB_SHIFTS, imap_parse_getmetadata, imap_run_getmetadata},
    {"GETQUOTA", IN, VERB_SHIFTS, imap_parse_getquota, imap_run_getquota},
    {"GETQUOTAROOT", IN, VERB_SHIFTS, imap_parse_one_mailbox, imap_run_getquotaroot},
    {"ID", ANY, VERB_SHIFTS, imap_parse_id, imap_run_id},
    {"IDLE", IN, VERB_SHIFTS, imap_parse_none, imap_run_idle},
    {"LIST", IN, VERB_SHIFTS, imap_parse_list, imap_run_list},
    {"LISTRIGHTS", IN, VERB_SHIFTS, imap_parse_acl, imap_run_listrights},
    {"LOGIN", OUT, VERB_QUIET, imap_parse_login, imap_run_login},
    {"LOGOUT", ANY, VERB_QUIET, imap_parse_none, imap_run_logout},
    {"LSUB", IN, VERB_SHIFTS, imap_parse_lsub, imap_run_lsub},
    {"MOVE", SEL, VERB_SEQ | VERB_SHIFTS | VERB_CHANGES, imap_parse_copy, imap_run_move},
    {"MYRIGHTS", IN, VERB_SHIFTS, imap_parse_acl, imap_run_myrights},
    {"NAMESPACE", IN, VERB_SHIFTS, imap_parse_none, imap_run_namespace},
    {"NOOP", ANY, VERB_SHIFTS, imap_parse_none, imap_run_noop},
    {"NOTIFY", IN, VERB_SHIFTS, imap_parse_notify, imap_run_notify},
    {"RENAME", IN, VERB_SHIFTS, imap_parse_rename, imap_run_rename},
    {"REPLACE", SEL, VERB_SEQ | VERB_SHIFTS | VERB_CHANGES, imap_parse_replace, imap_run_replace},
    {"SEARCH", SEL, VERB_SEQ, imap_parse_search, imap_run_search},
    {"SELECT", IN, VERB_QUIET, imap_parse_select, imap_run_select},
    {"SETACL", IN, VERB_SHIFTS, imap_parse_acl, imap_run_setacl},
    {"SETMETADATA", IN, VERB_SHIFTS, imap_parse_setmetadata, imap_run_setmetadata},
    {"SETQUOTA", IN, VERB_SHIFTS, imap_parse_setquota, imap_run_setquota},
    {"SORT", SEL, VERB_SEQ, imap_parse_sort, imap_run_sort},
    {"STARTTLS", OUT, VERB_QUIET, imap_parse_none, imap_run_starttls},
    {"STATUS", IN, VERB_SHIFTS, imap_parse_status, imap_run_status},
    {"STORE", SEL, VERB_SEQ | VERB_CHANGES, imap_parse_store, imap_run_store},
    {"SUBSCRIBE", IN, VERB_SHIFTS, imap_parse_one_mailbox, imap_run_subscribe},
    {"THREAD", SEL, VERB_SEQ, imap_parse_thread, imap_run_thread},
    {"UID COPY", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK | VERB_CHANGES, imap_parse_copy, imap_run_copy},
    {"UID EXPUNGE", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK | VERB_CHANGES, imap_parse_uid_expunge, imap_run_expunge},
    {"UID FETCH", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK, imap_parse_fetch, imap_run_fetch},
    {"UID MOVE", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK | VERB_CHANGES, imap_parse_copy, imap_run_move},
    {"UID REPLACE", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK | VERB_CHANGES, imap_parse_replace, imap_run_replace},
    {"UID SEARCH", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK, imap_parse_search, imap_run_search},
    {"UID SORT", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK, imap_parse_sort, imap_run_sort},
    {"UID STORE", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK | VERB_CHANGES, imap_parse_store, imap_run_store},
    {"UID THREAD", SEL, VERB_UID | VERB_SHIFTS | VERB_LOOK, imap_parse_thread, imap_run_thread},
    {"UNAUTHENTICATE", IN, VERB_QUIET, imap_parse_none, imap_run_unauthenticate},
    {"UNSELECT", SEL, VERB_QUIET, imap_parse_none, imap_run_unselect},
    {"UNSUBSCRIBE", IN, VERB_SHIFTS, imap_parse_one_mailbox, imap_run_unsubscribe},
    {"XLIST", IN, VERB_SHIFTS, imap_parse_list, imap_run_list},
};

/*
 * Verbs that may run while the session sits in another user's account (place.c, P2): they need no account, work on what
 * is selected, with its rights (s->rights), or say themselves whose mailbox they mean (imap_locate). In order.
 */
static const char *const abroad[] = {
    // clang-format off
    "APPEND", "CANCELUPDATE", "CAPABILITY", "CHECK", "CLOSE", "COPY", "CREATE", "DELETE", "DELETEACL", "ENABLE",
    "ESEARCH", "EXAMINE", "EXPUNGE", "FETCH", "GETACL", "GETMETADATA", "GETQUOTA", "GETQUOTAROOT", "ID", "IDLE",
    "LIST", "LISTRIGHTS", "LOGOUT", "LSUB", "MOVE", "MYRIGHTS", "NAMESPACE", "NOOP", "NOTIFY", "RENAME", "REPLACE",
    "SEARCH", "SELECT", "SETACL", "SETMETADATA", "SETQUOTA", "SORT", "STATUS", "STORE", "SUBSCRIBE", "THREAD",
    "UID COPY", "UID EXPUNGE", "UID FETCH", "UID MOVE", "UID REPLACE", "UID SEARCH", "UID SORT", "UID STORE",
    "UID THREAD", "UNAUTHENTICATE", "UNSELECT", "UNSUBSCRIBE", "XLIST",
    // clang-format on
};

bool imap_verb_abroad(const struct imap_verb *v)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(abroad); i++)
        if (strcmp(v->name, abroad[i]) == 0)
            return true;
    return false;
}

const struct imap_verb *imap_verb_find(struct tb_slice name)
{
    size_t low = 0, high = TB_ARRAY_LEN(verbs);
    char upper[16];
    if (name.len >= sizeof upper)
        return NULL;
    for (size_t i = 0; i < name.len; i++)
        upper[i] = name.ptr[i] >= 'a' && name.ptr[i] <= 'z' ? (char)(name.ptr[i] - 32) : name.ptr[i];
    upper[name.len] = '\0';
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = strcmp(upper, verbs[mid].name);
        if (c == 0)
            return &verbs[mid];
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* ---- capabilities ---- */

static bool cap_before(struct imap_session *s)
{
    return s->state == IMAP_NOT_AUTHENTICATED;
}
static bool cap_after(struct imap_session *s)
{
    return s->state != IMAP_NOT_AUTHENTICATED;
}
static bool cap_always(struct imap_session *s)
{
    return (void)s, true;
}
static bool cap_starttls(struct imap_session *s)
{
    return cap_before(s) && !tb_conn_secure(s->conn) && tb_conn_listener(s->conn)->tls == TB_TLS_STARTTLS;
}
static bool cap_auth(struct imap_session *s)
{
    return cap_before(s) && imap_plain_allowed(s);
}
static bool cap_admin(struct imap_session *s)
{
    return cap_after(s) && imap_is_admin(s);
}
static bool cap_compress(struct imap_session *s)
{
    return cap_after(s) && !tb_conn_compressed(s->conn);
}
static bool cap_message_limit(struct imap_session *s)
{
    return cap_after(s) && s->config->imap_message_limit > 0;
}
static bool cap_save_limit(struct imap_session *s)
{
    return cap_after(s) && s->config->imap_message_limit == 0 && s->config->imap_save_limit > 0;
}
static bool cap_unauthenticate(struct imap_session *s)
{
    return cap_after(s) && s->config->imap_unauthenticate;
}
static bool cap_no_login(struct imap_session *s)
{
    return cap_before(s) && !imap_plain_allowed(s);
}

static const struct {
    const char *name;
    bool (*is_true)(struct imap_session *s);
} capabilities[] = {
    // clang-format off
    {"IMAP4rev1", cap_always},
    {"IMAP4rev2", cap_always},
    {"SASL-IR", cap_before},
    {"LITERAL-", cap_before}, /* RFC 7888 5: small ones only, before we know the peer */
    {"LITERAL+", cap_after},
    {"ID", cap_always},
    {"STARTTLS", cap_starttls},
    {"LOGINDISABLED", cap_no_login},
    {"AUTH=", cap_auth}, /* once for each mechanism */
    {"ACL", cap_after},
    {"RIGHTS=kxte", cap_after},
    {"LIST-MYRIGHTS", cap_after},
    {"IDLE", cap_after},
    {"NAMESPACE", cap_after},
    {"CHILDREN", cap_after},
    {"SPECIAL-USE", cap_after},
    {"CREATE-SPECIAL-USE", cap_after},
    {"LIST-EXTENDED", cap_after},
    {"LIST-STATUS", cap_after},
    {"XLIST", cap_after},
    {"UIDPLUS", cap_after},
    {"MOVE", cap_after},
    {"ENABLE", cap_after},
    {"CONDSTORE", cap_after},
    {"QRESYNC", cap_after},
    {"APPENDLIMIT=", cap_after}, /* and the number */
    {"BINARY", cap_after},
    {"CATENATE", cap_after},
    {"COMPRESS=DEFLATE", cap_compress},
    {"CONTEXT=SEARCH", cap_after},
    {"ESEARCH", cap_after},
    {"ESORT", cap_after},
    {"I18NLEVEL=1", cap_after},
    {"INPROGRESS", cap_after},
    {"NOTIFY", cap_after},
    {"OBJECTID", cap_after},
    {"PARTIAL", cap_after},
    {"PREVIEW", cap_after},
    {"LIST-METADATA", cap_after},
    {"MESSAGELIMIT=", cap_message_limit}, /* and the number */
    {"METADATA", cap_after},
    {"MULTIAPPEND", cap_after},
    {"MULTISEARCH", cap_after},
    {"QUOTA", cap_after},
    {"QUOTA=RES-STORAGE", cap_after},
    {"QUOTA=RES-MESSAGE", cap_after},
    {"QUOTA=RES-MAILBOX", cap_after},
    {"QUOTASET", cap_admin},
    {"REPLACE", cap_after},
    {"SAVEDATE", cap_after},
    {"SAVELIMIT=", cap_save_limit},
    {"SEARCHRES", cap_after},
    {"SORT", cap_after},
    {"SORT=DISPLAY", cap_after},
    {"STATUS=SIZE", cap_after},
    {"THREAD=ORDEREDSUBJECT", cap_after},
    {"THREAD=REFERENCES", cap_after},
    {"THREAD=REFS", cap_after},
    {"WITHIN", cap_after},
    {"UIDONLY", cap_after},
    {"UNAUTHENTICATE", cap_unauthenticate},
    {"UNSELECT", cap_after},
    {"UTF8=ACCEPT", cap_after},
    // clang-format on
};

void imap_capabilities(struct imap_session *s, struct tb_buf *out)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(capabilities); i++) {
        if (!capabilities[i].is_true(s))
            continue;
        if (strcmp(capabilities[i].name, "AUTH=") == 0) {
            struct tb_sasl_env env = imap_sasl_env(s);
            tb_sasl_list(&env, "AUTH=", out);
            continue;
        }
        tb_buf_char(out, ' ');
        tb_buf_str(out, capabilities[i].name);
        if (strcmp(capabilities[i].name, "APPENDLIMIT=") == 0)
            tb_buf_u64(out, s->config->message_bytes_max);
        else if (strcmp(capabilities[i].name, "MESSAGELIMIT=") == 0)
            tb_buf_u64(out, s->config->imap_message_limit);
        else if (strcmp(capabilities[i].name, "SAVELIMIT=") == 0)
            tb_buf_u64(out, s->config->imap_save_limit);
    }
}

enum imap_run imap_run_capability(struct imap_session *s, struct imap_cmd *cmd)
{
    struct tb_buf b;
    tb_buf_init(&b, 4096);
    imap_capabilities(s, &b);
    imap_puts(&s->out, "* CAPABILITY");
    imap_put(&s->out, tb_buf_all(&b));
    imap_puts(&s->out, "\r\n");
    tb_buf_free(&b);
    return imap_reply(cmd, "OK CAPABILITY completed");
}

/* ---- small verbs ---- */

enum imap_run imap_run_noop(struct imap_session *s, struct imap_cmd *cmd)
{
    (void)s;
    return imap_reply(cmd, cmd->verb->name[0] == 'C' ? "OK CHECK completed" : "OK NOOP completed");
}

/* compress = "COMPRESS" SP algorithm; algorithm = "DEFLATE" (RFC 4978 5) */
void imap_parse_compress(struct imap_parser *p, struct imap_cmd *cmd)
{
    (void)cmd;
    imap_sp(p);
    if (!tb_slice_ieq(imap_atom(p), TB_SLICE("DEFLATE")))
        imap_fail(p, "BAD No such compression");
}

enum imap_run imap_run_compress(struct imap_session *s, struct imap_cmd *cmd)
{
    if (tb_conn_compressed(s->conn))
        return imap_reply(cmd, "BAD [COMPRESSIONACTIVE] DEFLATE is active already");
    s->compress = true;
    return imap_reply(cmd, "OK DEFLATE active");
}

enum imap_run imap_run_unauthenticate(struct imap_session *s, struct imap_cmd *cmd)
{
    if (!s->config->imap_unauthenticate)
        return imap_reply(cmd, "BAD Not offered here");
    s->unauthenticate = true;
    return imap_reply(cmd, "OK Nobody is logged in");
}

enum imap_run imap_run_logout(struct imap_session *s, struct imap_cmd *cmd)
{
    imap_puts(&s->out, "* BYE Logging out\r\n");
    s->logout = true;
    return imap_reply(cmd, "OK LOGOUT completed");
}

enum imap_run imap_run_namespace(struct imap_session *s, struct imap_cmd *cmd)
{
    imap_puts(&s->out, "* NAMESPACE ((\"\" \"/\")) ((\"" IMAP_OTHERS "\" \"/\")) NIL\r\n");
    return imap_reply(cmd, "OK NAMESPACE completed");
}

/* ---- ID (RFC 2971) ---- */

enum { ID_PAIRS_MAX = 30, ID_FIELD_MAX = 30, ID_VALUE_MAX = 1024, ID_LOG_MAX = 64 };

struct id_args {
    struct tb_slice name, version;
};

/* id_params_list = "(" string SP nstring *(SP string SP nstring) ")" / nil */
void imap_parse_id(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct id_args *a = tb_arena_alloc(p->arena, sizeof *a);
    unsigned pairs = 0;
    cmd->args = a;
    imap_sp(p);
    if (!imap_at(p, '(')) {
        if (!p->failed && imap_nstring(p).ptr)
            imap_fail(p, "BAD Expected a list or NIL");
        return;
    }
    imap_expect(p, '(');
    while (!p->failed && a && !imap_try(p, ')')) {
        if (pairs > 0)
            imap_sp(p);
        struct tb_slice field = imap_string(p);
        imap_sp(p);
        struct tb_slice value = imap_nstring(p);
        if (++pairs > ID_PAIRS_MAX || field.len > ID_FIELD_MAX || value.len > ID_VALUE_MAX)
            imap_fail(p, "BAD Too much identification"); /* RFC 2971 3.3 */
        if (tb_slice_ieq(field, TB_SLICE("name")))
            a->name = value;
        else if (tb_slice_ieq(field, TB_SLICE("version")))
            a->version = value;
    }
}

/* log_word: a client's own word, made safe for a logfmt line. */
static const char *log_word(struct tb_slice s, char out[ID_LOG_MAX + 1])
{
    size_t n = s.len < ID_LOG_MAX ? s.len : ID_LOG_MAX;
    for (size_t i = 0; i < n; i++)
        out[i] = s.ptr[i] > ' ' && s.ptr[i] < 0x7f && s.ptr[i] != '"' && s.ptr[i] != '=' ? s.ptr[i] : '_';
    out[n] = '\0';
    return n > 0 ? out : "-";
}

enum imap_run imap_run_id(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct id_args *a = cmd->args;
    char name[ID_LOG_MAX + 1], version[ID_LOG_MAX + 1];
    if (a && a->name.len > 0)
        tb_log(TB_LOG_INFO, "client proto=imap id=%s name=%s version=%s", tb_conn_id(s->conn), log_word(a->name, name),
               log_word(a->version, version));
    imap_puts(&s->out, "* ID (\"name\" \"Tambo\" \"version\" \"" TB_VERSION "\")\r\n");
    return imap_reply(cmd, "OK ID completed");
}
