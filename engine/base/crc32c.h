/*
 * crc32c.h: inside engine/base: the form of the checksum that needs no special instructions.
 */
#ifndef TB_CRC32C_H
#define TB_CRC32C_H

#include <tambo/base.h>

/* tb_crc32c_portable: as tb_crc32c, from a table: for machines without the instruction, and for its test. */
uint32_t tb_crc32c_portable(uint32_t crc, const void *ptr, size_t len);

#endif
