/*
 * rules.h: switches that break one safety rule each, so that the tests can show they would notice: make SABOTAGE=gate
 * builds such a variant into a folder of its own. In every other build TB_KEEPS(rule) is the constant true.
 *
 * What each rule is, and which test must fail without it: tests/sabotage.txt (make check-sabotage). A new rule needs no
 * more than its TB_KEEPS and a line there.
 */
#ifndef TB_RULES_H
#define TB_RULES_H

#include <stdbool.h>

#ifdef TB_SABOTAGE
#define TB_KEEPS(rule) (__builtin_strcmp(TB_SABOTAGE, #rule) != 0)
#else
#define TB_KEEPS(rule) true
#endif

#endif
