#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/dax/probes.sh - the static probes are where tracing tools look
#
# usage: probes.sh PROGRAM_OR_LIBRARY

set -eu
probes='dax_pte_fault dax_pte_fault_done dax_pmd_fault dax_pmd_fault_done
dax_load_hole dax_pmd_load_hole dax_pmd_load_hole_fallback
dax_insert_mapping dax_insert_pfn_mkwrite dax_insert_pfn_mkwrite_no_entry
dax_writeback_range dax_writeback_range_done dax_writeback_one
dax_break_begin dax_break_busy dax_break_wait dax_break_end dax_warning'
notes=$(readelf -n "$1")
echo "1..$(echo "$probes" | wc -w)"
status=0
for p in $probes; do
	if echo "$notes" | grep -q "Name: $p$"; then
		echo "ok - $p"
	else
		echo "not ok - $p"
		status=1
	fi
done
exit $status
