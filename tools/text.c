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

void out_begin(struct out *o, FILE *f, bool json)
{
	*o = (struct out){ .f = f, .json = json };
	out_open(o, NULL, '{');
}

void out_end(struct out *o)
{
	out_close(o, '}');
	if (o->json)
		fputc('\n', o->f);
	fflush(o->f);
}

static void start_value(struct out *o, const char *key)
{
	if (o->json) {
		if (o->more)
			fputc(',', o->f);
		if (o->depth)
			fprintf(o->f, "\n%*s", (int)(2 * o->depth), "");
		if (key)
			fprintf(o->f, "\"%s\": ", key);
	} else if (o->line) {
		fprintf(o->f, "%s%s=", o->more ? " " : "", key ? key : "");
	} else if (key) {
		fprintf(o->f, "%s: ", key);
	}
	o->more = true;
}

static void end_value(struct out *o)
{
	if (!o->json && !o->line)
		fputc('\n', o->f);
}

void out_open(struct out *o, const char *key, char bracket)
{
	if (o->json) {
		start_value(o, key);
		fputc(bracket, o->f);
	} else if (key && !o->line) {
		fprintf(o->f, "%s:\n", key);
	} else if (!key && o->depth && !o->line) {
		o->line = o->depth + 1;
		fputs("  ", o->f);
	}
	o->depth++;
	o->more = false;
}

void out_close(struct out *o, char bracket)
{
	if (o->json) {
		if (o->more)
			fprintf(o->f, "\n%*s", (int)(2 * (o->depth - 1)), "");
		fputc(bracket, o->f);
	} else if (o->line == o->depth) {
		fputc('\n', o->f);
		o->line = 0;
	}
	o->depth--;
	o->more = true;
}

void out_u64(struct out *o, const char *key, uint64_t value)
{
	start_value(o, key);
	fprintf(o->f, "%" PRIu64, value);
	end_value(o);
}

void out_hex(struct out *o, const char *key, uint64_t value)
{
	start_value(o, key);
	fprintf(o->f, o->json ? "%" PRIu64 : "%#" PRIx64, value);
	end_value(o);
}

void out_s64(struct out *o, const char *key, int64_t value)
{
	start_value(o, key);
	fprintf(o->f, "%" PRId64, value);
	end_value(o);
}

void out_bool(struct out *o, const char *key, bool value)
{
	start_value(o, key);
	fputs(o->json ? (value ? "true" : "false") : (value ? "yes" : "no"),
	      o->f);
	end_value(o);
}

void out_text(struct out *o, const char *key, const char *text)
{
	out_bytes(o, key, text, strlen(text));
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

static void print_json_bytes(FILE *f, const void *buf, size_t len)
{
	const unsigned char *p = (const unsigned char *)buf;

	fputc('"', f);
	while (len > 0) {
		size_t nr = utf8_len(p, len);

		if (nr == 0)
			fputs("\\ufffd", f);
		else if (nr == 1 && (*p < 0x20 || *p == 0x7f))
			fprintf(f, "\\u%04x", *p);
		else if (nr == 1 && (*p == '"' || *p == '\\'))
			fprintf(f, "\\%c", *p);
		else
			fwrite(p, 1, nr, f);
		p += nr ? nr : 1;
		len -= nr ? nr : 1;
	}
	fputc('"', f);
}

void out_bytes(struct out *o, const char *key, const void *buf, size_t len)
{
	start_value(o, key);
	if (o->json)
		print_json_bytes(o->f, buf, len);
	else
		print_bytes(o->f, buf, len);
	end_value(o);
}
