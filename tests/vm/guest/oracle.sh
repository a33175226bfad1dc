# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/oracle.sh - the waiting table, on XFS and on foliofs
#
# The answers go to $OUT/oracle.xfs and $OUT/oracle.foliofs.
. "${0%/*}/lib.sh"

# shellcheck disable=SC2046
for d in $(namespaces fsdax blockdev | sed 's|^|/dev/|'); do
	[ "$(blkid -o value -s TYPE "$d")" = xfs ] && xfs=$d
done
mkdir -p /mnt/xfs
check "XFS for the oracle" mount -t xfs -o dax=always "$xfs" /mnt/xfs
check "mkfs for the oracle" mkfs.foliofs -f "$four"
check "foliofs for the oracle" mount_on "$four" /mnt/f dax=always
mkdir -p /mnt/xfs/oracle /mnt/f/oracle
timeout -k 5 100 "$BUILD/tests/oracle/oracle" foliofs /mnt/f/oracle \
	>$OUT/oracle.foliofs 2>&1
timeout -k 5 100 "$BUILD/tests/oracle/oracle" xfs /mnt/xfs/oracle \
	>$OUT/oracle.xfs 2>&1
uname -r >$OUT/oracle.kernel
check "unmount after the oracle" unmount "$four" /mnt/f
