#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/dax/waitwake.sh - check waitwake.pml, and that it can fail
#
# usage: waitwake.sh waitwake.pml

set -eu
model=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
n=0

# verify WANT DEFINE...: 0 errors, or at least one
verify()
{
	want=$1
	shift
	n=$((n + 1))
	spin -a "$@" "$model" > spin.out
	cc -O2 -w -DSAFETY -o pan pan.c
	./pan -m100000 > pan.out 2>&1
	errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
	states=$(sed -n 's/ *\([0-9]*\) states, stored.*/\1/p' pan.out)
	if grep -q 'max search depth too small' pan.out; then
		errors=incomplete
	fi
	case "$want/$errors" in
	none/0 | some/[1-9]*) result=ok ;;
	*) result='not ok' ; status=1 ;;
	esac
	echo "$result $n - $* : errors $errors, $states states"
}

status=0
echo 1..6
verify none -DPART_ENTRY
verify some -DPART_ENTRY -DBUG_WAKE_ONE
verify some -DPART_ENTRY -DBUG_NO_BATON
verify none -DPART_FOLIO
verify some -DPART_FOLIO -DBUG_WAKE_AT_ZERO
verify some -DPART_FOLIO -DBUG_CHECK_FIRST
exit $status
