/* crc32c.h - the checksum of RFC 3720 appendix B.4 (Castagnoli), as Kafka's record batches, PROXY headers and snappy carry it. */
#ifndef CRC32C_H
#define CRC32C_H

#include "base.h"

/* The checksum of n bytes that follow those whose checksum is crc; 0 in front of the first. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The same without special instructions: what crc32c() does on processors that have none. For tests. */
uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n);

#endif
