/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/model.h - what x86 lets a crash leave on persistent memory
 *
 * The device is cut into lines of 64 bytes.  Each line has contents that are
 * durable for certain and, after them, the stores that are not, in program
 * order.  A crash leaves of every line, by itself, any prefix of its stores:
 * a line goes to media whole, whenever the processor likes, and shows what
 * was stored up to then.  Stores are split into aligned words of 8 bytes,
 * which never tear.
 *
 * A flush notes how many stores of the line came before it; a fence of the
 * same thread makes those durable.  A store that changes nothing is dropped:
 * the images with and without it are the same.
 *
 * A dirty line is one with stores that may or may not be durable.  Dirty
 * lines are numbered from 0 by their place on the device, until the next
 * store or fence.
 */
#ifndef CRASH_MODEL_H
#define CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/media.h"
#include "tests/crash/log.h"

struct model;

/* @mirror, if there is one, gets every byte that becomes durable as well. */
struct model *model_create(const void *base, uint64_t size, void *mirror);
void model_destroy(struct model *m);

void model_store(struct model *m, uint64_t off, const void *data, size_t len);
void model_flush(struct model *m, unsigned int thread, uint64_t off,
		 size_t len);
void model_fence(struct model *m, unsigned int thread);

/* The threads die; what they stored stays where it is for now. */
void model_kill(struct model *m);

/* One event of a log; begin and end do nothing. */
void model_apply(struct model *m, const struct log *log,
		 const struct log_event *e);

/* Sorts the dirty lines; valid until the model changes. */
unsigned int model_dirty(struct model *m);
unsigned int model_nr_dirty(const struct model *m);

/* Of dirty line @i: its number on the device, and its stores. */
uint64_t model_line(const struct model *m, unsigned int i);
unsigned int model_stores(const struct model *m, unsigned int i);

/* When store @k of dirty line @i was made; grows with time. */
uint64_t model_when(const struct model *m, unsigned int i, unsigned int k);
uint64_t model_now(const struct model *m);

/* Dirty line @i with its first @take stores on media. */
void model_contents(const struct model *m, unsigned int i, unsigned int take,
		    unsigned char ret[CACHE_LINE]);

const unsigned char *model_durable(const struct model *m);
uint64_t model_size(const struct model *m);

/* A number for the durable contents, kept up to date; see line_hash(). */
uint64_t model_hash(const struct model *m);
uint64_t line_hash(uint64_t line, const unsigned char data[CACHE_LINE]);

#endif
