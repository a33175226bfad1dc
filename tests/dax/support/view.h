/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/support/view.h - what the filesystem half of memfs needs of views
 */
#ifndef TESTS_DAX_VIEW_H
#define TESTS_DAX_VIEW_H

#include "tests/dax/support/memfs.h"

extern const struct dax_mapper_ops view_mapper_ops;

#endif
