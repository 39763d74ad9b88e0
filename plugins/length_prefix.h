/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The length in front of a compressed stream
 *
 * The engine stores compressed data in whole blocks, so a decompressor sees its stream followed by zeros. Neither zstd nor lz4 can tell where such a stream
 * ends; hence four bytes, little endian, with its size stand before it.
 */
#ifndef TERRACE_LENGTH_PREFIX_H
#define TERRACE_LENGTH_PREFIX_H

#include <stddef.h>
#include <stdint.h>

#define LENGTH_PREFIX_BYTES 4

static inline void length_prefix_put(void *dst, uint32_t stream_bytes)
{
	unsigned char *p = dst;

	p[0] = (unsigned char)stream_bytes;
	p[1] = (unsigned char)(stream_bytes >> 8);
	p[2] = (unsigned char)(stream_bytes >> 16);
	p[3] = (unsigned char)(stream_bytes >> 24);
}

/* Bytes of the stream that begins after the prefix; 0 when what is there cannot be one: too short, empty, or longer than the buffer. */
static inline size_t length_prefix_get(const void *src, size_t src_bytes)
{
	const unsigned char *p = src;
	size_t stream_bytes;

	if (src_bytes < LENGTH_PREFIX_BYTES)
		return 0;
	stream_bytes = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
	return stream_bytes <= src_bytes - LENGTH_PREFIX_BYTES ? stream_bytes : 0;
}

#endif
