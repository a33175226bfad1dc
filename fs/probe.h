/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/probe.h - is there a filesystem on this device already?
 *
 * Errors.    Negative errno with a sentence in the struct errmsg.
 * Source.    libblkid's safe probing, as mkfs.xfs and mkfs.btrfs use it.
 */
#ifndef FS_PROBE_H
#define FS_PROBE_H

#include "dax/err.h"
#include "dax/pmem.h"

/**
 * probe_empty() - make sure that nothing known would be overwritten
 * @path: the device by name
 * @pm: the same device, mapped
 * @err: what was found, in words
 *
 * Return: 0 when there is nothing; -EEXIST; or what reading said.
 */
int probe_empty(const char *path, const struct pmem *pm, struct errmsg *err);

#endif
