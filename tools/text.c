/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/text.c - words and numbers for people, and JSON for programs
 */
#include "tools/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void uuid_format(const uint8_t uuid[16], char text[UUID_TEXT])
{
	char *p = text;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += snprintf(p, 3, "%02x", uuid[i]);
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(const char *text, uint8_t ret_uuid[16])
{
	uint8_t uuid[16];

	if (strlen(text) != UUID_TEXT - 1)
		return false;
	for (int i = 0; i < 16; i++) {
		int high, low;

		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (*text++ != '-')
				return false;
		high = hex_digit(*text++);
		low = hex_digit(*text++);
		if (high < 0 || low < 0)
			return false;
		uuid[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret_uuid, uuid, sizeof(uuid));
	return true;
}

static bool digits_parse(const char *text, uint64_t *ret_nr, const char **end)
{
	char *stop;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*ret_nr = strtoull(text, &stop, 10);
	*end = stop;
	return errno == 0;
}

bool number_parse(const char *text, uint64_t *ret_nr)
{
	const char *end;
	uint64_t nr;

	if (!digits_parse(text, &nr, &end) || *end)
		return false;
	*ret_nr = nr;
	return true;
}

bool size_parse(const char *text, uint64_t *ret_size)
{
	static const char suffixes[] = "KMGTP";
	unsigned int shift = 0;
	const char *end, *s;
	uint64_t nr;

	if (!digits_parse(text, &nr, &end))
		return false;
	if (*end) {
		s = strchr(suffixes, toupper((unsigned char)*end));
		if (!s)
			return false;
		shift = 10 * (unsigned int)(s - suffixes + 1);
		end++;
		if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0)
			end += strlen(end);
	}
	/* Sizes become an off_t. */
	if (*end || nr > (uint64_t)INT64_MAX >> shift)
		return false;
	*ret_size = nr << shift;
	return true;
}

const char *size_format(uint64_t size, char text[SIZE_TEXT])
{
	static const char *const unit[] = { "bytes", "KiB", "MiB", "GiB",
					    "TiB",   "PiB", "EiB" };
	double value = (double)size;
	unsigned int i = 0;

	for (; value >= 1024 && i < 6; i++)
		value /= 1024;
	snprintf(text, SIZE_TEXT, i ? "%.1f %s" : "%.0f %s", value, unit[i]);
	return text;
}

void json_begin(struct json *j, FILE *f)
{
	*j = (struct json){ .f = f };
	json_open(j, NULL, '{');
}

void json_end(struct json *j)
{
	json_close(j, '{');
	fputc('\n', j->f);
	fflush(j->f);
}

static void start_value(struct json *j, const char *key)
{
	if (j->more)
		fputc(',', j->f);
	if (j->depth)
		fprintf(j->f, "\n%*s", (int)(2 * j->depth), "");
	if (key)
		fprintf(j->f, "\"%s\": ", key);
	j->more = true;
}

void json_open(struct json *j, const char *key, char bracket)
{
	start_value(j, key);
	fputc(bracket, j->f);
	j->depth++;
	j->more = false;
}

void json_close(struct json *j, char bracket)
{
	j->depth--;
	if (j->more)
		fprintf(j->f, "\n%*s", (int)(2 * j->depth), "");
	fputc(bracket == '{' ? '}' : ']', j->f);
	j->more = true;
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
	start_value(j, key);
	fprintf(j->f, "%" PRIu64, value);
}

void json_s64(struct json *j, const char *key, int64_t value)
{
	start_value(j, key);
	fprintf(j->f, "%" PRId64, value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	start_value(j, key);
	fputs(value ? "true" : "false", j->f);
}

void json_text(struct json *j, const char *key, const char *text)
{
	json_bytes(j, key, text, strlen(text));
}

/* Bytes of the UTF-8 sequence at @p, or 0 when it is none. */
static size_t utf8_len(const unsigned char *p, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t nr = p[0] < 0x80		? 1
		    : p[0] >> 5 == 0x06 ? 2
		    : p[0] >> 4 == 0x0e ? 3
		    : p[0] >> 3 == 0x1e ? 4
					: 0;
	uint32_t c;

	if (nr < 2 || nr > len)
		return nr == 1 ? 1 : 0;
	c = p[0] & (0x7fu >> nr);
	for (size_t i = 1; i < nr; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < least[nr] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	return nr;
}

void json_bytes(struct json *j, const char *key, const void *buf, size_t len)
{
	const unsigned char *p = (const unsigned char *)buf;

	start_value(j, key);
	fputc('"', j->f);
	while (len > 0) {
		size_t nr = utf8_len(p, len);

		if (nr == 0)
			fputs("\\ufffd", j->f);
		else if (nr == 1 && (*p < 0x20 || *p == 0x7f))
			fprintf(j->f, "\\u%04x", *p);
		else if (nr == 1 && (*p == '"' || *p == '\\'))
			fprintf(j->f, "\\%c", *p);
		else
			fwrite(p, 1, nr, j->f);
		p += nr ? nr : 1;
		len -= nr ? nr : 1;
	}
	fputc('"', j->f);
}

void print_bytes(FILE *f, const void *buf, size_t len)
{
	const unsigned char *p = (const unsigned char *)buf;

	while (len > 0) {
		size_t nr = utf8_len(p, len);

		if (nr == 0 || *p < 0x20 || *p == 0x7f || *p == '\\') {
			fprintf(f, "\\x%02x", *p);
			nr = 1;
		} else {
			fwrite(p, 1, nr, f);
		}
		p += nr;
		len -= nr;
	}
}
