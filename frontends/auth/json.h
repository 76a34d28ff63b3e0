/*
 * json.h: inside frontends/auth: as much of JSON (RFC 8259) as tokens and key sets need. Values are slices of the text.
 */
#ifndef TB_AUTH_JSON_H
#define TB_AUTH_JSON_H

#include <tambo/base.h>

/* tb_json_member: the value of a member of the object that the text is, and all of it is well formed. False: it is not,
 * or there is no such member, or more than one. */
bool tb_json_member(struct tb_slice object, const char *name, struct tb_slice *value);
/* tb_json_element: the next value of the array that the text is; *at: 0 to begin. False at the end, or if malformed. */
bool tb_json_element(struct tb_slice array, size_t *at, struct tb_slice *value);
/* tb_json_text: a string's bytes in UTF-8, with a NUL behind. False: none, or over max bytes, or one of them NUL. */
bool tb_json_text(struct tb_slice value, size_t max, char *out, size_t *len);
/* tb_json_seconds: a NumericDate (RFC 7519 2), rounded down. False: not a number without exponent, or negative. */
bool tb_json_seconds(struct tb_slice value, int64_t *out);

#endif
