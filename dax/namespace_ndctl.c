/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/namespace_ndctl.c - what libndctl says of regions and namespaces
 *
 * Nothing else in the project includes libndctl.h or libdaxctl.h.
 */
#include <daxctl/libdaxctl.h>
#include <errno.h>
#include <ndctl/libndctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dax/namespace.h"

/* As the kernel counts bad blocks. */
#define SECTOR UINT64_C(512)

static void copy_name(char to[NS_NAME], const char *from)
{
	snprintf(to, NS_NAME, "%s", from ? from : "");
}

/* One more at the end of an array; NULL: no memory. */
static void *grow(void **array, unsigned int *nr, size_t size)
{
	char *p = (char *)reallocarray(*array, *nr + 1, size);

	if (!p)
		return NULL;
	*array = p;
	p += *nr * size;
	memset(p, 0, size);
	(*nr)++;
	return p;
}

static enum ns_domain domain_of(struct ndctl_region *region)
{
	switch (ndctl_region_get_persistence_domain(region)) {
	case PERSISTENCE_CPU_CACHE:
		return NS_DOMAIN_CPU;
	case PERSISTENCE_MEM_CTRL:
		return NS_DOMAIN_MEMORY;
	case PERSISTENCE_NONE:
		return NS_DOMAIN_NONE;
	case PERSISTENCE_UNKNOWN:
	default:
		return NS_DOMAIN_UNKNOWN;
	}
}

static enum ns_mode mode_of(struct ndctl_namespace *ndns)
{
	/* What it is right now goes before what its label says. */
	if (ndctl_namespace_get_dax(ndns))
		return NS_MODE_DEVDAX;
	if (ndctl_namespace_get_btt(ndns))
		return NS_MODE_SECTOR;
	if (ndctl_namespace_get_pfn(ndns))
		return NS_MODE_FSDAX;
	switch (ndctl_namespace_get_mode(ndns)) {
	case NDCTL_NS_MODE_MEMORY:
		return NS_MODE_FSDAX;
	case NDCTL_NS_MODE_DAX:
		return NS_MODE_DEVDAX;
	case NDCTL_NS_MODE_SAFE:
		return NS_MODE_SECTOR;
	case NDCTL_NS_MODE_RAW:
		return NS_MODE_RAW;
	case NDCTL_NS_MODE_UNKNOWN:
	default:
		return NS_MODE_UNKNOWN;
	}
}

static void take_dax(struct ndctl_dax *dax, struct ns *ns)
{
	struct daxctl_region *region = ndctl_dax_get_daxctl_region(dax);
	struct daxctl_dev *dev = NULL;

	ns->alignment = ndctl_dax_get_align(dax);
	ns->size = ndctl_dax_get_size(dax);
	if (region)
		dev = daxctl_dev_get_first(region);
	if (!dev)
		return;
	copy_name(ns->device, daxctl_dev_get_devname(dev));
	ns->size = daxctl_dev_get_size(dev);
	if (daxctl_dev_get_memory(dev))
		ns->mode = NS_MODE_SYSTEM_RAM;
}

static void take_device(struct ndctl_namespace *ndns, struct ns *ns)
{
	struct ndctl_pfn *pfn = ndctl_namespace_get_pfn(ndns);
	struct ndctl_btt *btt = ndctl_namespace_get_btt(ndns);
	struct ndctl_dax *dax = ndctl_namespace_get_dax(ndns);

	ns->size = ndctl_namespace_get_size(ndns);
	if (dax) {
		take_dax(dax, ns);
	} else if (pfn) {
		ns->alignment = ndctl_pfn_get_align(pfn);
		ns->size = ndctl_pfn_get_size(pfn);
		copy_name(ns->device, ndctl_pfn_get_block_device(pfn));
	} else if (btt) {
		ns->size = ndctl_btt_get_size(btt);
		copy_name(ns->device, ndctl_btt_get_block_device(btt));
	} else {
		copy_name(ns->device, ndctl_namespace_get_block_device(ndns));
	}
}

static void take_bad(struct ndctl_namespace *ndns, struct ns *ns)
{
	const struct badblock *bb;

	for (bb = ndctl_namespace_get_first_badblock(ndns); bb;
	     bb = ndctl_namespace_get_next_badblock(ndns)) {
		if (ns->nr_bad < NS_BAD_MAX)
			ns->bad[ns->nr_bad] = (struct pmem_range){
				.off = bb->offset * SECTOR,
				.len = bb->len * SECTOR,
			};
		ns->nr_bad++;
	}
}

static int add_namespace(struct ns_set *set, struct ndctl_region *region,
			 struct ndctl_namespace *ndns)
{
	struct ns *ns;

	/* What a region has left is a namespace too, of no size. */
	if (!ndctl_namespace_is_active(ndns) &&
	    ndctl_namespace_get_size(ndns) == 0)
		return 0;
	ns = (struct ns *)grow((void **)&set->ns, &set->nr, sizeof(*ns));
	if (!ns)
		return -ENOMEM;
	copy_name(ns->name, ndctl_namespace_get_devname(ndns));
	copy_name(ns->region, ndctl_region_get_devname(region));
	ns->mode = mode_of(ndns);
	ns->domain = domain_of(region);
	ns->enabled = ndctl_namespace_is_active(ndns);
	take_device(ndns, ns);
	take_bad(ndns, ns);
	return 0;
}

static int add_region(struct ns_set *set, struct ndctl_region *region,
		      struct ndctl_bus *bus)
{
	struct ndctl_namespace *ndns;
	struct ns_region *r;
	int ret = 0;

	r = (struct ns_region *)grow((void **)&set->region, &set->nr_regions,
				     sizeof(*r));
	if (!r)
		return -ENOMEM;
	copy_name(r->name, ndctl_region_get_devname(region));
	copy_name(r->provider, ndctl_bus_get_provider(bus));
	r->size = ndctl_region_get_size(region);
	r->available = ndctl_region_get_available_size(region);
	r->domain = domain_of(region);
	ndctl_namespace_foreach(region, ndns)
	{
		ret = add_namespace(set, region, ndns);
		if (ret)
			break;
	}
	return ret;
}

static int add_all(struct ns_set *set, struct ndctl_ctx *ctx)
{
	struct ndctl_region *region;
	struct ndctl_bus *bus;
	int ret = 0;

	ndctl_bus_foreach(ctx, bus)
	{
		ndctl_region_foreach(bus, region)
		{
			ret = add_region(set, region, bus);
			if (ret)
				return ret;
		}
	}
	return ret;
}

int ns_scan(struct ns_set *ret, struct errmsg *err)
{
	struct ndctl_ctx *ctx;
	int ret_val;

	*ret = (struct ns_set){ 0 };
	ret_val = ndctl_new(&ctx);
	if (ret_val)
		return err_set(err, ret_val, "libndctl does not start: %s",
			       strerror(-ret_val));
	ret_val = add_all(ret, ctx);
	ndctl_unref(ctx);
	if (ret_val) {
		ns_free(ret);
		err_set(err, ret_val, "out of memory");
	}
	return ret_val;
}
