/*
 * message.h: what is in one RFC 5322 message: a streaming scanner that finds its MIME tree as the bytes pass, and pure
 * readers of what it found. No I/O. Every input is hostile: memory and time are bounded, nothing recurses on it.
 *
 * The scanner's results are stored beside the message, so that a FETCH parses nothing:
 *   envelope       the RFC 9051 "envelope" production as text, ready for the wire: "(date subject from ... message-id)"
 *   bodystructure  the RFC 9051 "body" production with extension data
 *   parts          a compact table of offsets, read by tb_parts_find (layout: docs/FORMAT.md, "parts")
 * Strings in both texts are quoted where RFC 3501 allows it, else literals ({n} CRLF bytes); 8-bit bytes always in
 * literals; NUL never appears.
 */
#ifndef TAMBO_MESSAGE_H
#define TAMBO_MESSAGE_H

#include <tambo/base.h>

/* Limits; past them the rest of the message is opaque (still stored and served byte for byte). docs/LENIENCY.md */
enum {
    TB_MIME_DEPTH_MAX = 100,
    TB_MIME_PARTS_MAX = 10000,
    TB_MIME_HEADER_MAX = 1 << 20,       /* bytes of the top header that are looked at */
    TB_MIME_PART_HEADER_MAX = 64 << 10, /* bytes of one part's header that are looked at */
    TB_MIME_TEXT_MAX = 1 << 20          /* bytes of envelope or bodystructure text */
};

struct tb_mime; /* opaque: one message being scanned */

struct tb_mime_result {   /* borrowed from the tb_mime, until it is reset or freed */
    uint64_t size;        /* bytes fed */
    uint64_t header_size; /* up to and with the empty line; = size when there is none */
    struct tb_slice envelope, bodystructure, parts;
    struct tb_slice subject_base; /* RFC 5256 2.1 base subject, UTF-8 */
    struct tb_slice references;   /* message ids of References, a space between, oldest first; then a tab and
                                     In-Reply-To's that are   not among them, if there are any; bounded to 4 KiB */
    struct tb_slice message_id;   /* normalised, without <> */
};

/* tb_mime_new: NULL without memory. A scanner is reused by tb_mime_reset; it keeps its buffers (a few KiB). */
struct tb_mime *tb_mime_new(void);
void tb_mime_free(struct tb_mime *m);
void tb_mime_reset(struct tb_mime *m);
/* tb_mime_feed: the next bytes, any split. Cost: about one pass of memchr over them. */
void tb_mime_feed(struct tb_mime *m, struct tb_slice bytes);
/* tb_mime_finish: the end of the message. OK; LIMIT without memory (nothing usable in out). */
enum tb_rc tb_mime_finish(struct tb_mime *m, struct tb_mime_result *out) TB_USE_RESULT;

/* ---- the parts table ---- */
enum tb_part_kind { TB_PART_LEAF, TB_PART_TEXT, TB_PART_MULTIPART, TB_PART_MESSAGE };
enum tb_encoding { TB_ENC_7BIT, TB_ENC_8BIT, TB_ENC_BINARY, TB_ENC_QP, TB_ENC_BASE64, TB_ENC_UNKNOWN };
struct tb_part {
    enum tb_part_kind kind;
    enum tb_encoding encoding;
    uint64_t header_offset, header_size; /* MIME header with its empty line; of the whole message for the root */
    uint64_t body_offset, body_size;
    uint32_t lines;
    uint32_t children;       /* of a MULTIPART; a MESSAGE has one: the enclosed message's root */
    uint32_t index;          /* preorder number, 0 = the message itself */
    struct tb_slice charset; /* lower case, "" if none; borrowed from the table */
};
/*
 * tb_parts_find: the part that an RFC 9051 section number names. path of n = 0 is the message itself; for a single-part
 * message path {1} is its body. NOTFOUND if there is none; CORRUPT if the table is damaged.
 *   out      for TEXT and HEADER of a nested message ask for the path and look at kind MESSAGE, then at *inner
 *   inner    may be NULL; if the part is a MESSAGE: the enclosed message's root part
 */
enum tb_rc tb_parts_find(struct tb_slice parts, const uint32_t *path, size_t n, struct tb_part *out,
                         struct tb_part *inner) TB_USE_RESULT;
/* tb_parts_next: walk all parts in preorder: *cursor = 0 to begin; NOTFOUND after the last. */
enum tb_rc tb_parts_next(struct tb_slice parts, size_t *cursor, struct tb_part *out) TB_USE_RESULT;

/* tb_body_write: the BODY (non-extensible) form of a bodystructure text. CORRUPT if it does not parse. */
enum tb_rc tb_body_write(struct tb_slice bodystructure, struct tb_buf *out) TB_USE_RESULT;

/* ---- the stored envelope, taken apart again (for SEARCH, SORT) ---- */
struct tb_address {
    struct tb_slice name, adl, mailbox, host; /* raw, as in the text; ptr NULL = NIL */
    struct tb_address *next;
};
struct tb_envelope {
    struct tb_slice date, subject, in_reply_to, message_id; /* ptr NULL = NIL */
    struct tb_address *from, *sender, *reply_to, *to, *cc, *bcc;
};
/* tb_envelope_read: parse envelope text into the arena. CORRUPT if it does not parse; LIMIT arena full. */
enum tb_rc tb_envelope_read(struct tb_slice text, struct tb_arena *arena, struct tb_envelope *out) TB_USE_RESULT;

/* ---- headers ---- */
/*
 * tb_header_next: walk the fields of a header block. *rest is advanced. field: the whole field with its CRLFs, byte for
 * byte; name: without blanks before the colon; value: after the colon, still folded. false at the empty line or the
 * end. A line without a colon is a field with an empty name.
 */
bool tb_header_next(struct tb_slice *rest, struct tb_slice *field, struct tb_slice *name, struct tb_slice *value);
/* tb_header_subset: the fields named (not: all others), byte for byte, then the empty line. RFC 9051 6.4.5
 * HEADER.FIELDS. */
void tb_header_subset(struct tb_slice header, const struct tb_slice *names, size_t n, bool negate, struct tb_buf *out);
/* tb_header_text: a field value unfolded and RFC 2047-decoded to UTF-8 (bad bytes become U+FFFD). RFC 2047 6. */
void tb_header_text(struct tb_slice value, struct tb_buf *out);
/* tb_header_value_first: the raw value of the first field of that name; false if none. */
bool tb_header_value_first(struct tb_slice header, struct tb_slice name, struct tb_slice *value);

/* ---- dates ---- */
struct tb_date {
    int64_t utc_s;    /* seconds since 1970 */
    int32_t zone_min; /* east is positive */
};
/* tb_date_parse: RFC 5322 3.3 date-time with obsolete forms, comments and two-digit years; years 1900..9999. */
bool tb_date_parse(struct tb_slice text, struct tb_date *out);
/* tb_date_internal_write: RFC 9051 date-time without quotes: "17-Jul-1996 02:44:25 -0700", always in +0000. */
void tb_date_internal_write(int64_t utc_s, struct tb_buf *out);
/* tb_date_internal_parse: the same production as a client sends it (zone any). */
bool tb_date_internal_parse(struct tb_slice text, int64_t *utc_s);
/* tb_date_rfc5322_write: "Thu, 17 Jul 1996 09:44:25 +0000". */
void tb_date_rfc5322_write(int64_t utc_s, struct tb_buf *out);
/* tb_date_day: days since 1970 of the calendar date in the given zone. */
int32_t tb_date_day(int64_t utc_s, int32_t zone_min);
/* tb_date_civil_day: day number of a calendar date; false if it does not exist (31 February). */
bool tb_date_civil_day(int year, int month, int day, int32_t *out);

/* ---- charsets and transfer encodings (SEARCH) ---- */
/* tb_text_decode: undo the transfer encoding and convert to UTF-8; bad input becomes U+FFFD; never more than out's
 * limit. */
void tb_text_decode(enum tb_encoding enc, struct tb_slice charset, struct tb_slice bytes, struct tb_buf *out);
enum { TB_PREVIEW_CHARS = 200, TB_PREVIEW_BYTES = 16 << 10 };
/*
 * tb_text_preview: append the first TB_PREVIEW_CHARS characters of a text part as one line of UTF-8, without markup or
 * quoted lines (RFC 8970 3.3). bytes: the part's beginning, as transferred; at most TB_PREVIEW_BYTES are looked at.
 */
void tb_text_preview(enum tb_encoding enc, struct tb_slice charset, struct tb_slice bytes, struct tb_buf *out);
/* tb_text_fold: Unicode simple case folding (utf8proc) for substring search, RFC 9051 6.4.4. */
void tb_text_fold(struct tb_slice utf8, struct tb_buf *out);
/* tb_text_casemap: i;unicode-casemap (RFC 5051 2): titlecase and decompose each character; compare the octets. */
void tb_text_casemap(struct tb_slice utf8, struct tb_buf *out);
bool tb_charset_known(struct tb_slice name);
/*
 * tb_transfer_new: undo a transfer encoding piece by piece, charset untouched; NULL without memory. UNKNOWN passes
 * bytes as they are. tb_transfer_put: appends what these bytes decode to, at most their number plus 3; any split gives
 * the same output. tb_transfer_end: what was held back. Bad base64 is skipped, what is no quoted-printable escape
 * stays. RFC 2045 6.
 */
struct tb_transfer;
struct tb_transfer *tb_transfer_new(enum tb_encoding encoding);
void tb_transfer_put(struct tb_transfer *t, struct tb_slice bytes, struct tb_buf *out);
void tb_transfer_end(struct tb_transfer *t, struct tb_buf *out);
void tb_transfer_free(struct tb_transfer *t);
/* tb_utf8_valid: well-formed UTF-8 (RFC 3629). */
bool tb_utf8_valid(struct tb_slice s);
/* tb_utf8_nfc: Unicode normalisation form C; false if s is not valid UTF-8. */
bool tb_utf8_nfc(struct tb_slice s, struct tb_buf *out);
/* tb_utf8_saslprep: a password as RFC 4013 prepares it (2.1 mapping, 2.2 NFKC); of what 2.3 prohibits only control
 * characters in ASCII. False if s is empty, not UTF-8, holds those, or nothing is left of it. */
bool tb_utf8_saslprep(struct tb_slice s, struct tb_buf *out);

#endif
