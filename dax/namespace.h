/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/namespace.h - NVDIMM regions and namespaces, and how they are named
 *
 * What the kernel knows of persistent memory is read through libndctl, by
 * namespace_ndctl.c alone; namespace_none.c stands in where it is missing.
 * Nothing here changes a namespace: that is ndctl(1)'s, and who is refused is
 * told what to type there.
 *
 * Units.     Bytes.
 * Errors.    Negative errno with a sentence in the struct errmsg.
 * Locking.   None is needed: the answers are a copy, as old as the call.
 * Ownership. ns_free() frees what ns_scan() gave.
 * Source.    libndctl(3), libdaxctl(3), ndctl-create-namespace(1).
 */
#ifndef DAX_NAMESPACE_H
#define DAX_NAMESPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/err.h"
#include "dax/pmem.h"

#define NS_NAME	   32
#define NS_BAD_MAX 64u

enum ns_mode {
	NS_MODE_UNKNOWN,
	NS_MODE_RAW,
	NS_MODE_SECTOR,
	NS_MODE_FSDAX,
	NS_MODE_DEVDAX,
	NS_MODE_SYSTEM_RAM, /* devdax that the kernel uses as memory */
};

/* What must be done for a store to outlive the power. */
enum ns_domain {
	NS_DOMAIN_UNKNOWN,
	NS_DOMAIN_NONE,
	NS_DOMAIN_MEMORY, /* cache lines must be written back */
	NS_DOMAIN_CPU,	  /* caches are written back for us */
};

struct ns_region {
	char name[NS_NAME];
	char provider[NS_NAME]; /* ACPI.NFIT, e820, ... */
	uint64_t size;
	uint64_t available;
	enum ns_domain domain;
};

struct ns {
	char name[NS_NAME];
	char region[NS_NAME];
	char device[NS_NAME]; /* below /dev: dax0.0, pmem0; or empty */
	enum ns_mode mode;
	enum ns_domain domain;
	bool enabled;
	uint64_t size;
	uint64_t alignment; /* 0: the mode has none */
	unsigned int nr_bad;
	struct pmem_range bad[NS_BAD_MAX]; /* the first of them */
};

struct ns_set {
	unsigned int nr_regions;
	struct ns_region *region;
	unsigned int nr;
	struct ns *ns;
};

/* All there are.  -ENOTSUP: built without libndctl. */
int ns_scan(struct ns_set *ret, struct errmsg *err);
void ns_free(struct ns_set *set);

const char *ns_mode_name(enum ns_mode mode);
const char *ns_domain_name(enum ns_domain domain);

/* What somebody named. */
struct ns_device {
	char path[256];
	bool named; /* not by its path: whoever named it is told the path */
	enum ns_mode mode;
	uint64_t size;
	uint64_t alignment;
};

/**
 * ns_resolve() - the path of what a person calls a device
 * @name: a path; or, where there is no such file, namespace0.0 or dax0.0
 *
 * A path is passed on as it is, unless it is that of a namespace that cannot
 * be used as it is.
 *
 * Return: 0; -ENOENT no such namespace; -EINVAL in another mode than devdax,
 * or disabled, and @err has the command that would change that; -ENOTSUP a
 * namespace's name without libndctl; -ENAMETOOLONG.
 */
int ns_resolve(const char *name, struct ns_device *ret, struct errmsg *err);

/* One line about what will be used, for a terminal. */
void ns_describe(const char *name, const struct ns_device *dev,
		 struct errmsg *ret_line);

#endif
