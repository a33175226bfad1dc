/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/wrap.h - stand-ins that the linker puts before the real thing
 */
#ifndef CRASH_WRAP_H
#define CRASH_WRAP_H

struct pmem_recorder;

/* Every device that is opened from now on is recorded so; NULL for not. */
extern const struct pmem_recorder *wrap_recorder;

/* The clock starts over, so that a run can be repeated to the byte. */
void wrap_clock_reset(void);

#endif
