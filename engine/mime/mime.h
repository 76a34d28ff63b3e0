/*
 * mime.h: what the files of this room share. Not a door: only engine/mime, engine/store/search.c and tests include it.
 *
 * The way of one message: part.c finds lines, boundaries and header blocks as bytes pass and keeps one tb_mime_part per
 * entity; at the end of each header block structure.c writes that entity's text into `pieces`; at the end of the
 * message structure.c joins records and pieces into bodystructure and the parts table.
 */
#ifndef TB_MIME_H
#define TB_MIME_H

#include <tambo/message.h>

#include <iconv.h>

enum {
    MIME_BOUNDARY_MAX = 1000,            /* bytes of a boundary; RFC 2046 5.1.1 allows 70 */
    MIME_LINE_KEEP = 1100,               /* a longer line is never a boundary */
    MIME_STRING_MAX = 64 << 10,          /* bytes of one header value in either text */
    MIME_TOKEN_MAX = 127,                /* type, subtype, encoding: RFC 6838 4.2 */
    MIME_PARAMS_MAX = 1024,              /* parameters of one field that are looked at */
    MIME_CHARSET_MAX = 63,               /* bytes of a charset name in the parts table */
    MIME_ENVELOPE_INNER_MAX = 128 << 10, /* bytes of an enclosed message's envelope */
    MIME_REFERENCES_MAX = 4096,
    MIME_ID_MAX = 998,         /* a longer message id is no id: RFC 5322 2.1.1 */
    MIME_BASE_MAX = 2000,      /* bytes of a base subject */
    MIME_KEEP_BYTES = 64 << 10 /* a buffer above this is given back at reset */
};

/* ---- header fields that the texts are made of ---- */
enum tb_mime_field {
    MIME_DATE,
    MIME_SUBJECT,
    MIME_FROM,
    MIME_SENDER,
    MIME_REPLY_TO,
    MIME_TO,
    MIME_CC,
    MIME_BCC,
    MIME_IN_REPLY_TO,
    MIME_MESSAGE_ID,
    MIME_REFERENCES,
    MIME_CONTENT_TYPE,
    MIME_CONTENT_ENCODING,
    MIME_CONTENT_ID,
    MIME_CONTENT_DESCRIPTION,
    MIME_CONTENT_MD5,
    MIME_CONTENT_DISPOSITION,
    MIME_CONTENT_LANGUAGE,
    MIME_CONTENT_LOCATION,
    MIME_FIELDS
};
struct tb_mime_fields {
    struct tb_slice header;             /* the whole block */
    struct tb_slice value[MIME_FIELDS]; /* of the first field of that name; ptr NULL = absent */
    uint32_t count[MIME_FIELDS];
};
/* tb_mime_fields_read: one pass over a header block. */
void tb_mime_fields_read(struct tb_slice header, struct tb_mime_fields *f);
/* tb_mime_field_of: the field with this name, or MIME_FIELDS. */
enum tb_mime_field tb_mime_field_of(struct tb_slice name);

/* ---- text.c: strings of the wire ---- */
/* tb_mime_string: quoted where RFC 3501 allows it, else a literal. s holds no NUL. */
void tb_mime_string(struct tb_buf *out, struct tb_slice s);
/*
 * tb_mime_raw_string: a raw header value as a string: trimmed, unfolded, cut at MIME_STRING_MAX; a NUL becomes '?', a
 * bare CR a space. scratch is overwritten when the value needs a copy.
 */
void tb_mime_raw_string(struct tb_buf *out, struct tb_buf *scratch, struct tb_slice raw);
/* tb_mime_unfold: append raw without line ends, as above, untrimmed. */
void tb_mime_unfold(struct tb_buf *out, struct tb_slice raw);
/* tb_mime_skip_comment: p is at '('; the position behind the matching ')', or end. Nested comments, quoted pairs; no
 * recursion. */
const char *tb_mime_skip_comment(const char *p, const char *end);
/* tb_mime_put, tb_mime_put_char: tb_buf_put with the common case, room enough, inline. */
static inline void tb_mime_put(struct tb_buf *b, const char *p, size_t n)
{
    if (n < b->cap - b->len && !b->failed) {
        memcpy(b->ptr + b->len, p, n);
        b->len += n;
    } else {
        tb_buf_put(b, p, n);
    }
}
static inline void tb_mime_put_char(struct tb_buf *b, char c)
{
    if (b->len < b->cap && !b->failed)
        b->ptr[b->len++] = c;
    else
        tb_buf_char(b, c);
}
static inline bool tb_mime_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}
static inline char tb_mime_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* ---- envelope.c, address.c ---- */
struct tb_mime_scratch { /* buffers that live as long as the scanner */
    struct tb_buf text, name, adl, spec, comment, value, params;
};
void tb_mime_scratch_init(struct tb_mime_scratch *s);
void tb_mime_scratch_free(struct tb_mime_scratch *s);
/* tb_mime_scratch_trim: give back what grew beyond MIME_KEEP_BYTES. */
void tb_mime_scratch_trim(struct tb_mime_scratch *s);

/*
 * tb_mime_addresses_write: append the addresses of one field value, "(name adl mailbox host)" each, without the list's
 * parentheses. Stops at a whole address before out->len would pass max. RFC 5322 3.4 and 4.4, RFC 9051 7.5.2.
 */
void tb_mime_addresses_write(struct tb_buf *out, struct tb_mime_scratch *s, struct tb_slice value, size_t max);
/* tb_mime_envelope_write: the envelope of a header block, at most max bytes (max >= 64 KiB). */
void tb_mime_envelope_write(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f, size_t max);
/* tb_mime_message_id: append the first id in value, normalised, without <>; false if there is none. Advances *value. */
bool tb_mime_message_id(struct tb_slice *value, struct tb_buf *out);
/* tb_mime_references_write: the ids of References and In-Reply-To as tb_mime_result wants them. */
void tb_mime_references_write(const struct tb_mime_fields *f, struct tb_buf *scratch, struct tb_buf *out);
/*
 * tb_mime_subject_base: append the base subject (RFC 5256 2.1). scratch is overwritten. true: it was the subject of a
 * reply or forward (RFC 5256 3, REFERENCES).
 */
bool tb_mime_subject_base(struct tb_slice subject, struct tb_buf *scratch, struct tb_buf *out);

/* ---- param.c: the values of Content-Type and Content-Disposition ---- */
struct tb_mime_param {
    struct tb_slice name;  /* without the marks of RFC 2231 3 when section >= 0 */
    struct tb_slice value; /* between the quotes, still with quoted pairs and folds, if quoted */
    int32_t section;       /* RFC 2231 3 continuation number, -1 = an ordinary parameter */
    uint32_t order;
    bool quoted, extended;
};
/* tb_mime_token: the leading token of a field value, comments and blanks skipped, advanced past it. Empty if there is
 * none. */
struct tb_slice tb_mime_token(struct tb_slice *s);
/* tb_mime_params_read: "; name=value ..." into scratch->params (replaced). Returns how many. */
size_t tb_mime_params_read(struct tb_mime_scratch *s, struct tb_slice text);
/* tb_mime_params_write: body-fld-param of RFC 9051 from what tb_mime_params_read left: "(...)" or NIL. */
void tb_mime_params_write(struct tb_buf *out, struct tb_mime_scratch *s, size_t n);
/* tb_mime_param_get: append the unquoted value of the first ordinary parameter of that name; false if there is none. */
bool tb_mime_param_get(const struct tb_mime_scratch *s, size_t n, struct tb_slice name, struct tb_buf *out);

/* ---- part.c, structure.c ---- */
struct tb_mime_piece { /* bytes in tb_mime.pieces */
    uint32_t at, len;
};
struct tb_mime_part { /* one entity; the array is in preorder */
    uint64_t header_offset, body_offset, end;
    uint64_t body_lines; /* line ends of the message before body_offset */
    uint32_t lines, parent, children;
    struct tb_mime_piece head, tail, envelope, charset;
    enum tb_part_kind kind;
    enum tb_encoding encoding;
    bool digest; /* a multipart/digest: children are messages by default */
};
struct tb_mime_open { /* an entity that has not ended yet */
    uint32_t part;
    uint32_t boundary_at, boundary_len; /* in tb_mime.boundaries; len 0 = none, or closed */
    uint64_t key;                       /* keyed hash of the boundary */
    uint8_t slot, below;                /* hash chain: below = the next open level with this slot, + 1 */
};
struct tb_mime {
    uint64_t line_start; /* offset of the line being read */
    uint64_t line_len;   /* bytes of it that came in earlier feeds */
    uint64_t lines;      /* LFs before line_start */
    unsigned eol;        /* bytes of the line end before line_start */
    unsigned keep_len;
    bool in_header, sealed, finished, nomem;
    char last; /* the last byte fed of an unfinished line */
    char keep[MIME_LINE_KEEP];
    uint32_t depth;
    struct tb_mime_open open[TB_MIME_DEPTH_MAX];
    uint8_t slots[256]; /* innermost open level + 1 of each hash slot */
    uint8_t hash_key[16];
    struct tb_buf header, boundaries, pieces;
    size_t header_line;         /* where the unfinished line begins in header */
    struct tb_mime_part *parts; /* owned */
    uint32_t parts_n, parts_cap;
    size_t text_used; /* bytes of bodystructure promised so far */
    struct tb_mime_scratch scratch;
    struct tb_buf envelope, bodystructure, table, subject_base, references, message_id;
};

struct tb_mime_content { /* what tb_mime_describe found out */
    enum tb_part_kind kind;
    enum tb_encoding encoding;
    bool digest;
    struct tb_slice boundary; /* in scratch->value */
};
/*
 * tb_mime_describe: write an entity's pieces from its header and decide what it is.
 *   by_default_message  it is a child of a multipart/digest
 *   may_nest            it may have children; else a multipart or message becomes an opaque leaf
 */
void tb_mime_describe(struct tb_mime *m, const struct tb_mime_fields *f, bool by_default_message, bool may_nest,
                      struct tb_mime_part *part, struct tb_mime_content *out);
/* tb_mime_describe_opaque: the smallest pieces there are: application/octet-stream. */
void tb_mime_describe_opaque(struct tb_mime *m, struct tb_mime_part *part);
/* tb_mime_text_cost: an upper bound of what the part adds to the bodystructure. */
size_t tb_mime_text_cost(const struct tb_mime_part *part);
enum { MIME_TEXT_COST_OPAQUE = 192 }; /* tb_mime_text_cost of an opaque part is below this */
void tb_mime_structure_write(struct tb_mime *m);
void tb_mime_table_write(struct tb_mime *m);

/* ---- charset.c: transfer decoding and conversion to UTF-8 as a stream ---- */
struct tb_charset;                                              /* one row of the allow-list */
const struct tb_charset *tb_charset_find(struct tb_slice name); /* NULL if it is not on the list */
struct tb_text_stream {
    enum tb_encoding encoding;
    const struct tb_charset *charset; /* NULL: ASCII and UTF-8 pass, other bytes are bad */
    bool raw;                         /* the decoded bytes as they are, in no charset */
    iconv_t cd;
    bool cd_open;
    uint32_t base64_bits;
    uint8_t base64_n;
    uint8_t qp_state; /* 0 text, 1 after '=', 2 after '=' and a digit, 3 after '=' CR */
    char qp_digit;
    uint8_t carry_n;
    char carry[16]; /* an unfinished character */
};
/* tb_text_stream_begin: a fresh stream; tb_text_stream_end releases it. Any split of the bytes gives the same output.
 */
void tb_text_stream_begin(struct tb_text_stream *t, enum tb_encoding encoding, struct tb_slice charset);
void tb_text_stream_put(struct tb_text_stream *t, struct tb_slice bytes, struct tb_buf *out);
void tb_text_stream_end(struct tb_text_stream *t, struct tb_buf *out);
/* tb_utf8_decode: the character at s; its length, or 0 if malformed (then *want = length it would have, 0 if hopeless).
 */
size_t tb_utf8_decode(const char *s, size_t n, uint32_t *cp, bool *cut);

#endif
