/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/text.h - words and numbers for people, and JSON for programs
 *
 * Errors.    The parse functions answer false and leave the result alone.
 * Ownership. A struct json borrows its FILE; json_end() flushes it.
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

/* Prints as it goes; the caller sees to it that braces match. */
struct json {
	FILE *f;
	unsigned int depth;
	bool more; /* something stands before: a comma is due */
};
void json_begin(struct json *j, FILE *f);
void json_end(struct json *j);
/* @key is NULL inside an array.  @bracket: '{' or '['. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_s64(struct json *j, const char *key, int64_t value);
void json_bool(struct json *j, const char *key, bool value);
void json_text(struct json *j, const char *key, const char *text);
/* Bytes that need not be UTF-8: what is not becomes U+FFFD. */
void json_bytes(struct json *j, const char *key, const void *buf, size_t len);

/* Bytes for a terminal: control characters and such as \xNN. */
void print_bytes(FILE *f, const void *buf, size_t len);

#endif
