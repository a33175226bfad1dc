/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/foliofs/policy.h - as if dax/policy.h were installed
 */
#include "dax/policy.h"
