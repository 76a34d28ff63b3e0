/*
 * rules.h: switches that break one safety rule each, so that the tests can show they would notice: make SABOTAGE=gate
 * builds such a variant into a folder of its own. In every other build TB_KEEPS(rule) is the constant true.
 *
 *   gate   the output gate: replies leave before their log position is durable (S7)
 *   dsync  RWF_DSYNC of durable writes
 *   checksum  what is read from the log and the index is verified before it is believed (X2)
 *   dedupcompare  a body is only taken for another one when its bytes are the same (R11)
 *   gcwait  a segment is freed only when a confirmed checkpoint names nothing in it (S6)
 */
#ifndef TB_RULES_H
#define TB_RULES_H

#ifndef TB_SABOTAGE_gate
#define TB_SABOTAGE_gate 0
#endif
#ifndef TB_SABOTAGE_dsync
#define TB_SABOTAGE_dsync 0
#endif
#ifndef TB_SABOTAGE_checksum
#define TB_SABOTAGE_checksum 0
#endif
#ifndef TB_SABOTAGE_dedupcompare
#define TB_SABOTAGE_dedupcompare 0
#endif
#ifndef TB_SABOTAGE_gcwait
#define TB_SABOTAGE_gcwait 0
#endif
#define TB_KEEPS(rule) (!TB_SABOTAGE_##rule)

#endif
