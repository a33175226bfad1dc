/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/media.h - the types that integers have on media
 *
 * Everything on media is little-endian.  The types here are structs, so that
 * the compiler refuses to mix them with native integers: reading is
 * le64_to_cpu(), writing is cpu_to_le64(), and there is no third way.
 *
 * Units.     BLOCK_SIZE bytes a block, CHUNK_SIZE bytes a 2 MiB chunk.
 * Errors.    Nothing here fails.
 * Source.    Linux include/linux/byteorder, sizes pinned as in XFS's
 *            xfs_ondisk.h.
 */
#ifndef DAX_MEDIA_H
#define DAX_MEDIA_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SHIFT 12
#define BLOCK_SIZE  (UINT64_C(1) << BLOCK_SHIFT)
#define BLOCK_MASK  (BLOCK_SIZE - 1)

/* A chunk is what one huge page maps: 512 blocks, naturally aligned. */
#define CHUNK_ORDER  9
#define CHUNK_BLOCKS (UINT64_C(1) << CHUNK_ORDER)
#define CHUNK_SHIFT  (BLOCK_SHIFT + CHUNK_ORDER)
#define CHUNK_SIZE   (UINT64_C(1) << CHUNK_SHIFT)

/* What the processor writes back to media at once. */
#define CACHE_LINE 64u

typedef struct {
	uint16_t raw;
} le16;
typedef struct {
	uint32_t raw;
} le32;
typedef struct {
	uint64_t raw;
} le64;

static inline uint16_t le16_to_cpu(le16 v)
{
	return le16toh(v.raw);
}

static inline uint32_t le32_to_cpu(le32 v)
{
	return le32toh(v.raw);
}

static inline uint64_t le64_to_cpu(le64 v)
{
	return le64toh(v.raw);
}

static inline le16 cpu_to_le16(uint16_t v)
{
	return (le16){ htole16(v) };
}

static inline le32 cpu_to_le32(uint32_t v)
{
	return (le32){ htole32(v) };
}

static inline le64 cpu_to_le64(uint64_t v)
{
	return (le64){ htole64(v) };
}

/* A media word as a transaction sees it: eight bytes that change together. */
static inline uint64_t le32_pair(le32 low, le32 high)
{
	return (uint64_t)le32_to_cpu(high) << 32 | le32_to_cpu(low);
}

#define MEDIA_SIZE(type, bytes) \
	static_assert(sizeof(type) == (bytes), #type " has a fixed size")
#define MEDIA_OFFSET(type, field, bytes)                \
	static_assert(offsetof(type, field) == (bytes), \
		      #type "." #field " has a fixed place")

#endif
