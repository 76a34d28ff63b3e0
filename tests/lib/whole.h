/*
 * whole.h: is a store that nobody has open whole? For tests, after each thing that may have harmed one.
 */
#ifndef TESTS_WHOLE_H
#define TESTS_WHOLE_H

#include <tambo/check.h>

/* store_whole: true; or the first damage that the check finds, or why it could not look, in what. */
bool store_whole(struct tb_io *io, const char *dir, char what[300]);

#endif
