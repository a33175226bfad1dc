/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/hostile.c - thousands of damaged images
 *
 *	hostile CASES [SEED [FIRST]]	cases of seeded random bytes
 *	hostile 0 FILE...		one case of each file's bytes
 *
 * A case that crashes or hangs is named on stderr; FIRST runs it again.  With
 * HOSTILE_SAVE=FILE the bytes of a seeded case go to a file as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/image.h"

#define MAX_BYTES    160
#define CASE_SECONDS 60

static uint64_t seed = 1;
static char where[300];

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void on_death(int sig)
{
	static const char text[] = ": crashed or hung\n";

	(void)!write(STDERR_FILENO, where, strlen(where));
	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void run(const uint8_t *data, size_t len)
{
	alarm(CASE_SECONDS);
	image_case(data, len);
	alarm(0);
}

static void save(const char *name, const uint8_t *data, size_t len)
{
	FILE *f = fopen(name, "w");

	if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0)
		perror(name);
}

static void run_seeded(uint64_t i)
{
	uint64_t state = seed * UINT64_C(1000003) + i;
	uint8_t data[MAX_BYTES];
	size_t len = 2 + next_random(&state) % (MAX_BYTES - 1);

	for (size_t n = 0; n < len; n++)
		data[n] = (uint8_t)next_random(&state);
	if (getenv("HOSTILE_SAVE"))
		save(getenv("HOSTILE_SAVE"), data, len);
	snprintf(where, sizeof(where), "hostile 1 %" PRIu64 " %" PRIu64, seed,
		 i);
	run(data, len);
}

static int run_file(const char *name)
{
	static uint8_t data[4096];
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, data, sizeof(data));

	if (len < 0) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		return 1;
	}
	close(fd);
	snprintf(where, sizeof(where), "hostile %s", name);
	run(data, (size_t)len);
	return 0;
}

static void print_counts(void)
{
	const struct image_counts *c = &image_counts;

	printf("%" PRIu64 " cases: %" PRIu64 " sound, %" PRIu64
	       " mounted as they were, %" PRIu64 " repaired, %" PRIu64
	       " repaired in part, %" PRIu64 " refused\n",
	       c->nr_cases, c->nr_sound, c->nr_mounted, c->nr_repaired,
	       c->nr_left, c->nr_refused);
}

int main(int argc, char **argv)
{
	uint64_t nr = argc > 1 ? strtoull(argv[1], NULL, 10) : 100;
	uint64_t first = nr && argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	int ret = 0;

	if (nr && argc > 2)
		seed = strtoull(argv[2], NULL, 10);
	signal(SIGALRM, on_death);
	signal(SIGABRT, on_death);
#ifndef __SANITIZE_ADDRESS__
	signal(SIGSEGV, on_death);
#endif
	image_setup();
	if (nr == 0)
		for (int i = 2; i < argc; i++)
			ret |= run_file(argv[i]);
	for (uint64_t i = first; i < first + nr; i++)
		run_seeded(i);
	print_counts();
	return ret;
}
