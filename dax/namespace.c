/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/namespace.c - what people call a device, and what is wrong with it
 */
#include "dax/namespace.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES "/dev/"

const char *ns_mode_name(enum ns_mode mode)
{
	static const char *const name[] = {
		[NS_MODE_UNKNOWN] = "unknown",
		[NS_MODE_RAW] = "raw",
		[NS_MODE_SECTOR] = "sector",
		[NS_MODE_FSDAX] = "fsdax",
		[NS_MODE_DEVDAX] = "devdax",
		[NS_MODE_SYSTEM_RAM] = "system-ram",
	};

	return name[mode];
}

const char *ns_domain_name(enum ns_domain domain)
{
	static const char *const name[] = {
		[NS_DOMAIN_UNKNOWN] = "unknown",
		[NS_DOMAIN_NONE] = "none",
		[NS_DOMAIN_MEMORY] = "memory_controller",
		[NS_DOMAIN_CPU] = "cpu_cache",
	};

	return name[domain];
}

void ns_free(struct ns_set *set)
{
	free(set->region);
	free(set->ns);
	*set = (struct ns_set){ 0 };
}

/* "dax0.0" is @what and two numbers. */
static bool is_called(const char *name, const char *what)
{
	size_t len = strlen(what), first, second;

	if (strncmp(name, what, len) != 0)
		return false;
	first = strspn(name + len, "0123456789");
	if (first == 0 || name[len + first] != '.')
		return false;
	second = strspn(name + len + first + 1, "0123456789");
	return second > 0 && name[len + first + 1 + second] == '\0';
}

static const struct ns *find(const struct ns_set *set, const char *name)
{
	for (unsigned int i = 0; i < set->nr; i++)
		if (strcmp(set->ns[i].name, name) == 0 ||
		    (set->ns[i].device[0] &&
		     strcmp(set->ns[i].device, name) == 0))
			return &set->ns[i];
	return NULL;
}

/* What is in the way, and the command that takes it out of the way. */
static int refuse(const struct ns *ns, struct errmsg *err)
{
	/* First: what mode it has is not known before that. */
	if (!ns->enabled)
		return err_set(err, -EINVAL,
			       "%s: is disabled; to enable it: ndctl "
			       "enable-namespace %s",
			       ns->name, ns->name);
	if (ns->mode == NS_MODE_SYSTEM_RAM)
		return err_set(err, -EINVAL,
			       "%s: is used as memory; to have it as a device: "
			       "daxctl reconfigure-device -m devdax %s",
			       ns->name, ns->device);
	if (ns->mode != NS_MODE_DEVDAX)
		return err_set(err, -EINVAL,
			       "%s: in %s mode, and must be in devdax mode; "
			       "what is on it is lost with: ndctl "
			       "create-namespace -f -e %s -m devdax -a 4k%s",
			       ns->name, ns_mode_name(ns->mode), ns->name,
			       ns->mode == NS_MODE_FSDAX
				       ? " (or use a file on a filesystem "
					 "mounted from it with dax)"
				       : "");
	return err_set(err, -ENODEV,
		       "%s: has no device; see ndctl list -N -n %s", ns->name,
		       ns->name);
}

static bool usable(const struct ns *ns)
{
	return ns->mode == NS_MODE_DEVDAX && ns->enabled && ns->device[0];
}

static int take(const struct ns *ns, struct ns_device *ret, struct errmsg *err)
{
	if (!usable(ns))
		return refuse(ns, err);
	ret->mode = ns->mode;
	ret->size = ns->size;
	ret->alignment = ns->alignment;
	if (ret->named)
		snprintf(ret->path, sizeof(ret->path), DEVICES "%s",
			 ns->device);
	return 0;
}

int ns_resolve(const char *name, struct ns_device *ret, struct errmsg *err)
{
	bool is_path = strncmp(name, DEVICES, strlen(DEVICES)) == 0;
	const char *base = is_path ? name + strlen(DEVICES) : name;
	bool is_dax = is_called(base, "dax");
	struct ns_device dev = { .named = false };
	struct ns_set set;
	const struct ns *ns;
	int ret_val;

	if (strlen(name) >= sizeof(dev.path))
		return err_set(err, -ENAMETOOLONG, "%s: name too long", name);
	snprintf(dev.path, sizeof(dev.path), "%s", name);
	if (!is_path)
		dev.named = (is_dax || is_called(base, "namespace")) &&
			    access(name, F_OK) != 0;
	if (!dev.named && (!is_path || strchr(base, '/'))) {
		*ret = dev;
		return 0;
	}

	/* Without libndctl dax0.0 is a path all the same. */
	if (dev.named && is_dax)
		snprintf(dev.path, sizeof(dev.path), DEVICES "%s", name);
	ret_val = ns_scan(&set, err);
	ns = ret_val ? NULL : find(&set, base);
	if (ns)
		ret_val = take(ns, &dev, err);
	else if (is_path || is_dax)
		ret_val = 0; /* whoever opens it says what is wrong */
	else if (!ret_val)
		ret_val = err_set(err, -ENOENT,
				  "%s: no such namespace; foliofsctl list "
				  "shows what there is",
				  name);
	ns_free(&set);
	if (!ret_val)
		*ret = dev;
	return ret_val;
}

void ns_describe(const char *name, const struct ns_device *dev,
		 struct errmsg *ret_line)
{
	if (!dev->size)
		err_set(ret_line, 0, "%s: using %s", name, dev->path);
	else
		err_set(ret_line, 0,
			"%s: using %s, %ju MiB in %s mode, alignment %ju KiB",
			name, dev->path, (uintmax_t)dev->size >> 20,
			ns_mode_name(dev->mode),
			(uintmax_t)dev->alignment >> 10);
}
