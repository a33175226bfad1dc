# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/load.sh - what the last machine left, and work until the end
#
# The first line of $OUT/cycle is the number of this boot: 0 makes the
# filesystems, every other one finds what the boot before it left.
. "${0%/*}/lib.sh"
cycle=$(cat $OUT/cycle)
set -- $(namespaces fsdax blockdev | sed 's|^|/dev/|')
for d in "$@"; do
	[ "$(blkid -o value -s TYPE "$d")" = xfs ] && xfs=$d
done
mkdir -p /mnt/xfs
check "XFS recovers, cycle $cycle" mount -t xfs -o dax=always "$xfs" /mnt/xfs

verify() {
	name=$1 device=$2
	dir=/mnt/on-$name
	check "fsck as it is, $name, cycle $cycle" fsck.foliofs -n "$device"
	check "recovery, $name, cycle $cycle" mount_on "$device" $dir dax=always
	check "what was done is there, $name, cycle $cycle" \
		"$BUILD/tests/vm/vm-load" --check $dir $OUT/ack.$name
	check "unmount, $name, cycle $cycle" unmount "$device" $dir
	check "fsck after recovery, $name, cycle $cycle" \
		fsck.foliofs -n "$device"
}

begin() {
	name=$1 device=$2
	dir=/mnt/on-$name
	shift 2
	rm -f $OUT/ack.$name
	timeout 60 mkfs.foliofs -q -f $size "$device" &&
		mount_on "$device" $dir dax=always || {
		echo "not ok - load on $name, cycle $cycle"
		return
	}
	[ "$name" = xfs ] && sync -f "$device"
	"$BUILD/tests/vm/vm-load" $dir $OUT/ack.$name "$@" >/tmp/load.$name \
		2>&1 &
}

each() {
	size=
	"$1" two "$two"
	"$1" four "$four" map
	size="-s 128M"
	"$1" xfs /mnt/xfs/load map
}
[ "$cycle" = 0 ] || each verify
[ "$cycle" = "$(cat $OUT/cycles)" ] && exit 0
each begin
# All of them have begun when all have said how far they are.
for name in two four xfs; do
	n=0 # tenths of a second
	until [ -s $OUT/ack.$name ] || [ $((n += 1)) = 300 ]; do
		sleep 0.1
	done
	[ -s $OUT/ack.$name ] || {
		echo "not ok - load on $name, cycle $cycle"
		sed 's/^/# /' /tmp/load.$name
	}
done
echo LOADED
sleep 60
