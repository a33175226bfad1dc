/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/text.h - words and numbers for people, and JSON for programs
 *
 * Errors.    The parse functions answer false and leave the result alone.
 * Ownership. A struct out borrows its FILE; out_end() flushes it.
 */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define UUID_TEXT 37 /* with the terminator */

/* 8-4-4-4-12 hex digits. */
void uuid_format(const uint8_t uuid[16], char text[UUID_TEXT]);
bool uuid_parse(const char *text, uint8_t ret_uuid[16]);

/* 4096, 64K, 10M, 2G, 1T; powers of 1024. */
bool size_parse(const char *text, uint64_t *ret_size);

/* A plain decimal number, all of @text. */
bool number_parse(const char *text, uint64_t *ret_nr);

/* "1.5 GiB" in a buffer of the caller. */
#define SIZE_TEXT 24
const char *size_format(uint64_t size, char text[SIZE_TEXT]);

/*
 * One report, as JSON or as plain lines: `key: value`, and what stands in an
 * array one line a member, `key=value key=value`.  It is printed as it goes;
 * the caller sees to it that brackets match.
 */
struct out {
	FILE *f;
	bool json;
	bool more; /* something stands before: a comma is due */
	unsigned int depth;
	unsigned int line; /* plain: depth of the member on this line */
};
void out_begin(struct out *o, FILE *f, bool json);
void out_end(struct out *o);
/* @key is NULL inside an array.  @bracket: the character itself. */
void out_open(struct out *o, const char *key, char bracket);
void out_close(struct out *o, char bracket);
void out_u64(struct out *o, const char *key, uint64_t value);
void out_s64(struct out *o, const char *key, int64_t value);
void out_bool(struct out *o, const char *key, bool value);
void out_text(struct out *o, const char *key, const char *text);
/* A number that is a set of bits or an address: hexadecimal when plain. */
void out_hex(struct out *o, const char *key, uint64_t value);
/* Bytes that need not be UTF-8: in JSON what is not becomes U+FFFD. */
void out_bytes(struct out *o, const char *key, const void *buf, size_t len);

/* Bytes for a terminal: control characters and such as \xNN. */
void print_bytes(FILE *f, const void *buf, size_t len);

#endif
