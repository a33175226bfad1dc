/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/ctl_svg.c - foliofsctl map --svg: a file's place on media, drawn
 *
 * Every extent is a line: the file goes from left to right, the media from
 * bottom to top.  A file that lies on media in one piece is one diagonal; a
 * jump up or down is a seek.  The bar below says what each part of the file
 * is, also where the line is too short to be seen.
 */
#include <inttypes.h>
#include <stdio.h>

#include "dax/media.h"
#include "fs/ioctl.h"
#include "tools/ctl.h"
#include "tools/text.h"

#define WIDTH	960
#define HEIGHT	600
#define LEFT	110.0
#define RIGHT	930.0
#define TOP	70.0
#define BOTTOM	470.0
#define BAR_TOP 484.0
#define BAR	14.0
#define TICKS	8u

struct axis {
	uint64_t first, len; /* bytes */
	double from, to;     /* of the picture */
};

static double at(const struct axis *a, uint64_t value)
{
	return a->from +
	       (a->to - a->from) * (double)(value - a->first) / (double)a->len;
}

/* Far apart in hue and in lightness, for all kinds of eyes. */
static const struct {
	const char *colour, *name;
} kinds[] = {
	{ "#0072b2", "data" },
	{ "#d55e00", "shared" },
	{ "#999999", "unwritten" },
	{ "#cc79a7", "shared, unwritten" },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static unsigned int kind_of(const struct foliofs_ioc_extent *e)
{
	return (e->flags & FOLIOFS_EXTENT_SHARED ? 1 : 0) +
	       (e->flags & FOLIOFS_EXTENT_UNWRITTEN ? 2 : 0);
}

/* Text of an element; a name may have anything in it. */
static void print_escaped(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '&' || *p == '<' || *p == '>')
			printf("&#%d;", *p);
		else if (*p < 0x20 || *p >= 0x7f)
			printf("\\x%02x", *p);
		else
			putchar(*p);
	}
}

/* 2^n bytes, so that at most TICKS of them are on the axis. */
static uint64_t tick_of(uint64_t len)
{
	uint64_t tick = BLOCK_SIZE;

	while (len / tick >= TICKS)
		tick *= 2;
	return tick;
}

/* A mark of an axis; what stands beside it is exact, for ticks are 2^n. */
static void print_mark(uint64_t value, char text[SIZE_TEXT])
{
	static const char *const unit[] = { "", " KiB", " MiB", " GiB",
					    " TiB" };
	unsigned int i = 0;

	for (; i < 4 && value && value % 1024 == 0; i++)
		value /= 1024;
	snprintf(text, SIZE_TEXT, "%" PRIu64 "%s", value, unit[i]);
}

static uint64_t first_mark(const struct axis *a, uint64_t tick)
{
	return (a->first + tick - 1) / tick * tick;
}

static void draw_axes(const struct axis *x, const struct axis *y)
{
	uint64_t tick = tick_of(x->len), end = x->first + x->len;
	char text[SIZE_TEXT];

	for (uint64_t v = first_mark(x, tick); v <= end; v += tick) {
		print_mark(v, text);
		printf("<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" "
		       "y1=\"%.0f\" y2=\"%.0f\"/>\n"
		       "<text x=\"%.1f\" y=\"%.0f\" "
		       "text-anchor=\"middle\">%s</text>\n",
		       at(x, v), at(x, v), TOP, BAR_TOP + BAR, at(x, v),
		       BAR_TOP + BAR + 18, text);
	}
	tick = tick_of(y->len);
	end = y->first + y->len;
	for (uint64_t v = first_mark(y, tick); v <= end; v += tick) {
		print_mark(v, text);
		printf("<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" "
		       "y1=\"%.1f\" y2=\"%.1f\"/>\n"
		       "<text x=\"%.0f\" y=\"%.1f\" "
		       "text-anchor=\"end\">%s</text>\n",
		       LEFT, RIGHT, at(y, v), at(y, v), LEFT - 8, at(y, v) + 4,
		       text);
	}
	printf("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">offset in "
	       "the file</text>\n"
	       "<text transform=\"translate(22 %.0f) rotate(-90)\" "
	       "text-anchor=\"middle\">offset on media</text>\n",
	       (LEFT + RIGHT) / 2, BAR_TOP + BAR + 40, (TOP + BOTTOM) / 2);
}

static void draw_extent(const struct axis *x, const struct axis *y,
			const struct foliofs_ioc_extent *e)
{
	unsigned int kind = kind_of(e);
	double from = at(x, e->pos), to = at(x, e->pos + e->len);
	/* Something must be seen of it. */
	double wide = to - from < 4 ? 4 : to - from;

	printf("<g class=\"k%u\"%s><title>file %" PRIu64 ", media %" PRIu64
	       ", %" PRIu64 " bytes: %s%s%s</title>",
	       kind,
	       e->flags & FOLIOFS_EXTENT_BEHIND ? " opacity=\"0.45\"" : "",
	       e->pos, e->off, e->len, kinds[kind].name,
	       e->flags & FOLIOFS_EXTENT_CHUNK ? ", order 9" : ", order 0",
	       e->flags & FOLIOFS_EXTENT_BEHIND ? ", behind the end" : "");
	printf("<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" "
	       "stroke-width=\"%d\"/>",
	       from, at(y, e->off), from + wide, at(y, e->off + e->len),
	       e->flags & FOLIOFS_EXTENT_CHUNK ? 7 : 4);
	printf("<rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%.0f\"/>"
	       "</g>\n",
	       from, BAR_TOP, to - from < 1.5 ? 1.5 : to - from, BAR);
}

/* What is behind the end is pale, and the end has a mark. */
static void draw_end(const struct axis *x, uint64_t size)
{
	printf("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\" "
	       "stroke=\"#222\" stroke-dasharray=\"4 3\"/>\n"
	       "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"end\">end of the "
	       "file</text>\n",
	       at(x, size), at(x, size), TOP, BAR_TOP + BAR, at(x, size) - 6,
	       TOP + 16);
}

static void draw_legend(void)
{
	double x = LEFT, y = HEIGHT - 26;

	for (unsigned int i = 0; i < NR_KINDS; i++) {
		printf("<g class=\"k%u\"><rect x=\"%.0f\" y=\"%.0f\" "
		       "width=\"14\" height=\"14\"/></g>\n"
		       "<text x=\"%.0f\" y=\"%.0f\">%s</text>\n",
		       i, x, y - 11, x + 20, y, kinds[i].name);
		x += i == NR_KINDS - 1 ? 170 : 110;
	}
	printf("<rect x=\"%.0f\" y=\"%.0f\" width=\"14\" height=\"14\" "
	       "fill=\"#fff\" stroke=\"#888\"/>\n"
	       "<text x=\"%.0f\" y=\"%.0f\">hole</text>\n",
	       x, y - 11, x + 20, y);
	x += 80;
	printf("<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.0f\" y2=\"%.0f\" "
	       "stroke=\"#222\" stroke-width=\"4\"/>\n"
	       "<text x=\"%.0f\" y=\"%.0f\">4 KiB</text>\n",
	       x, x + 24, y - 4, y - 4, x + 30, y);
	x += 90;
	printf("<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.0f\" y2=\"%.0f\" "
	       "stroke=\"#222\" stroke-width=\"7\"/>\n"
	       "<text x=\"%.0f\" y=\"%.0f\">2 MiB</text>\n",
	       x, x + 24, y - 4, y - 4, x + 30, y);
}

static void draw_head(const char *path, uint64_t size, size_t nr)
{
	char text[SIZE_TEXT];

	printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
	       "height=\"%d\" viewBox=\"0 0 %d %d\" "
	       "font-family=\"sans-serif\" font-size=\"13\">\n<style>"
	       ".grid{stroke:#e4e4e4}text{fill:#222}",
	       WIDTH, HEIGHT, WIDTH, HEIGHT);
	for (unsigned int i = 0; i < NR_KINDS; i++)
		printf(".k%u{fill:%s;stroke:%s}", i, kinds[i].colour,
		       kinds[i].colour);
	/* A stroke would hide the holes beside it. */
	printf("g rect{stroke:none;shape-rendering:crispEdges}"
	       "</style>\n"
	       "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
	       "<text x=\"%.0f\" y=\"32\" font-size=\"17\">",
	       LEFT);
	print_escaped(path);
	printf("</text>\n<text x=\"%.0f\" y=\"54\">%s, %zu extent%s</text>\n",
	       LEFT, size_format(size, text), nr, nr == 1 ? "" : "s");
}

/* The part of the media that the file uses. */
static struct axis media_axis(const struct foliofs_ioc_extent *ext, size_t nr)
{
	uint64_t first = UINT64_MAX, end = 0;

	for (size_t i = 0; i < nr; i++) {
		if (ext[i].off < first)
			first = ext[i].off;
		if (ext[i].off + ext[i].len > end)
			end = ext[i].off + ext[i].len;
	}
	if (end == 0)
		first = 0;
	return (struct axis){ .first = first,
			      .len = end > first ? end - first : BLOCK_SIZE,
			      .from = BOTTOM,
			      .to = TOP };
}

void ctl_svg(const char *path, uint64_t size,
	     const struct foliofs_ioc_extent *ext, size_t nr)
{
	struct axis x = { .len = size, .from = LEFT, .to = RIGHT };
	struct axis y = media_axis(ext, nr);

	if (nr && ext[nr - 1].pos + ext[nr - 1].len > x.len)
		x.len = ext[nr - 1].pos + ext[nr - 1].len;
	if (x.len == 0)
		x.len = BLOCK_SIZE;
	draw_head(path, size, nr);
	printf("<rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" "
	       "fill=\"none\" stroke=\"#888\"/>\n",
	       LEFT, BAR_TOP, RIGHT - LEFT, BAR);
	draw_axes(&x, &y);
	for (size_t i = 0; i < nr; i++)
		draw_extent(&x, &y, &ext[i]);
	if (x.len > size && nr)
		draw_end(&x, size);
	draw_legend();
	puts("</svg>");
}
