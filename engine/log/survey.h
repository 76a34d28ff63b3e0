/*
 * survey.h: reading one segment from end to end without believing it: for checks and scrubs, next to a log that may be
 * open for writing.
 *
 * Where tb_log_scan stops at the first doubt, a survey says what is wrong and goes on behind it. It keeps no state of
 * the log's and writes nothing. Thread: any, one at a time; cfg->io is used for waiting reads only.
 */
#ifndef TB_SURVEY_H
#define TB_SURVEY_H

#include "engine/log/log.h"

struct tb_survey; /* opaque */

struct tb_survey_frame {
    uint64_t lsn;         /* of the frame, the hole, or the end */
    uint64_t len;         /* of the frame, or of the hole up to the next valid frame or the segment's end */
    const uint8_t *bytes; /* the whole frame; valid until the next call */
    struct tb_disk_frame head;
    int sys; /* a hole: the errno of the first read in it that failed, or 0 */
};

/*
 * tb_survey_segments: the numbers of the segments in cfg->dir, ascending, in a new array. 0 or -errno.
 */
int tb_survey_segments(const struct tb_log_config *cfg, uint32_t **out, size_t *n);
/*
 * tb_survey_open: begin at a position, 0: at the first frame. end: frames at or above it are not looked at (a log that
 * is being written); 0: to the segment's end. direct: past the page cache. OK, NOTFOUND, IO, LIMIT; CORRUPT: the
 * segment's header is damaged: *out is there all the same, and frames can be read.
 */
enum tb_rc tb_survey_open(const struct tb_log_config *cfg, uint32_t segment, uint64_t from, uint64_t end, bool direct,
                          struct tb_survey **out, struct tb_error *err) TB_USE_RESULT;
/* tb_survey_mend: write a damaged segment header anew, if a valid frame shows that the segment is ours. OK, IO;
 * CORRUPT: it holds none. Blocks. */
enum tb_rc tb_survey_mend(const struct tb_log_config *cfg, uint32_t segment, struct tb_error *err) TB_USE_RESULT;
/* tb_survey_make: an empty segment, where the log says there was one and there is none. OK, NOSPACE, IO. Blocks. */
enum tb_rc tb_survey_make(const struct tb_log_config *cfg, uint32_t segment, struct tb_error *err) TB_USE_RESULT;
/*
 * tb_survey_next: OK: a valid frame; CORRUPT: a hole, with a valid frame behind it; NOTFOUND: no valid frame at
 * out->lsn or behind it (sys is set if some of it could not be read); BUSY: some MiB were searched, call again; LIMIT
 * without memory. A frame is at most about 2 MiB.
 */
enum tb_rc tb_survey_next(struct tb_survey *s, struct tb_survey_frame *out) TB_USE_RESULT;
uint64_t tb_survey_read_bytes(const struct tb_survey *s);
void tb_survey_close(struct tb_survey *s);

/*
 * tb_survey_records: the records of a valid frame, each verified; stops at what each returns other than OK. CORRUPT: a
 * record contradicts its frame (err says how).
 */
enum tb_rc tb_survey_records(const struct tb_survey_frame *f, enum tb_rc (*each)(void *user, const struct tb_record *r),
                             void *user, struct tb_error *err) TB_USE_RESULT;

#endif
