/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/lib/flush.c - make stores durable
 */
#include "dax/lib/flush.h"

#include <linux/magic.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "dax/media.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define STREAM_FROM 256 /* bytes; below, caching is cheaper */

typedef void (*flush_fn)(const char *p, const char *end);

__attribute__((target("clwb"))) static void clwb(const char *p, const char *end)
{
	for (; p < end; p += CACHE_LINE)
		_mm_clwb((void *)(uintptr_t)p);
}

__attribute__((target("clflushopt"))) static void clflushopt(const char *p,
							     const char *end)
{
	for (; p < end; p += CACHE_LINE)
		_mm_clflushopt((void *)(uintptr_t)p);
}

static void clflush(const char *p, const char *end)
{
	for (; p < end; p += CACHE_LINE)
		_mm_clflush((const void *)p);
}

static flush_fn choose(void)
{
	unsigned int a, b = 0, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return clflush;
	if (b & bit_CLWB)
		return clwb;
	return b & bit_CLFLUSHOPT ? clflushopt : clflush;
}

void flush_lines(uintptr_t start, uintptr_t end)
{
	static _Atomic(flush_fn) fn;
	flush_fn f = atomic_load_explicit(&fn, memory_order_relaxed);

	if (!f) {
		f = choose();
		atomic_store_explicit(&fn, f, memory_order_relaxed);
	}
	f((const char *)(start & ~(uintptr_t)(CACHE_LINE - 1)),
	  (const char *)end);
}

void flush_fence(void)
{
	_mm_sfence();
}

static void copy_and_flush(char *dst, const char *src, size_t len)
{
	memcpy(dst, src, len);
	flush_lines((uintptr_t)dst, (uintptr_t)dst + len);
}

void flush_copy(void *to, const void *from, size_t len)
{
	const char *src = from;
	char *dst = to;
	size_t head = -(uintptr_t)dst % CACHE_LINE;

	if (len < STREAM_FROM) {
		copy_and_flush(dst, src, len);
		return;
	}
	if (head)
		copy_and_flush(dst, src, head);
	dst += head;
	src += head;
	for (len -= head; len >= CACHE_LINE; len -= CACHE_LINE) {
		for (size_t i = 0; i < CACHE_LINE; i += sizeof(__m128i))
			_mm_stream_si128(
				(__m128i *)(dst + i),
				_mm_loadu_si128((const __m128i *)(src + i)));
		dst += CACHE_LINE;
		src += CACHE_LINE;
	}
	if (len)
		copy_and_flush(dst, src, len);
}

#define KNOWS_LINES 1
#else
/* Elsewhere the kernel is asked, which knows how. */
void flush_lines(uintptr_t start, uintptr_t end)
{
	(void)start;
	(void)end;
}

void flush_fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

void flush_copy(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}

#define KNOWS_LINES 0
#endif

static bool maps_sync(int dev)
{
	void *p = mmap(NULL, BLOCK_SIZE, PROT_READ,
		       MAP_SHARED_VALIDATE | MAP_SYNC, dev, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, BLOCK_SIZE);
	return true;
}

bool flush_needs_msync(int dev)
{
	struct statfs fs;
	struct stat st;

	if (!KNOWS_LINES || fstat(dev, &st))
		return true;
	if (S_ISCHR(st.st_mode) || maps_sync(dev))
		return false;
	return fstatfs(dev, &fs) || fs.f_type != TMPFS_MAGIC;
}
