/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/trace.h - static probes
 *
 * The names are those of the kernel's fs_dax tracepoints, and the arguments
 * begin as theirs do: the inode number.  A probe is one nop until somebody
 * attaches (perf, bpftrace, systemtap: provider "foliofs").
 *
 * Source.    Linux include/trace/events/fs_dax.h; sys/sdt.h of systemtap.
 */
#ifndef DAX_TRACE_H
#define DAX_TRACE_H

#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#else /* built without systemtap-sdt-dev: no probes */
#define DTRACE_PROBE1(provider, name, a) ((void)(a))
#define DTRACE_PROBE4(provider, name, a, b, c, d) \
	((void)(a), (void)(b), (void)(c), (void)(d))
#endif

/* ino, index, order, write */
#define trace_dax_fault(name, ino, index, order, write) \
	DTRACE_PROBE4(foliofs, name, ino, index, order, write)

/* ino, index, order, vm_fault_t or errno */
#define trace_dax_done(name, ino, index, order, result) \
	DTRACE_PROBE4(foliofs, name, ino, index, order, result)

/* ino, first index, last index, how it went */
#define trace_dax_range(name, ino, first, last, result) \
	DTRACE_PROBE4(foliofs, name, ino, first, last, result)

#define trace_dax_warning(what) DTRACE_PROBE1(foliofs, dax_warning, what)

#endif
