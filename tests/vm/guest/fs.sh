# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/fs.sh - a foliofs on each kind of device
. "${0%/*}/lib.sh"

# shellcheck disable=SC2046
set -- $(namespaces fsdax blockdev | sed 's|^|/dev/|')
xfs=/mnt/xfs ext4=/mnt/ext4
mkdir -p $xfs $ext4
case $(blkid -o value -s TYPE "$1") in
xfs) x=$1 e=$2 ;;
*) x=$2 e=$1 ;;
esac
check "XFS mounts with dax" mount -t xfs -o dax=always "$x" $xfs
check "ext4 mounts with dax" mount -t ext4 -o dax=always "$e" $ext4

# The core of the mount tests.
on() {
	device=$1 program=$2
	shift 2
	export FOLIOFS_TEST_DEVICE=$device
	tap "$program on $where" "$BUILD/tests/mount/mount-$program" "$@"
}
where="devdax 2M"
on "$two" persist durable.write durable.rename durable.mmap_and_msync
where="devdax 4K"
on "$four" persist durable.overwrite durable.exchange durable.setxattr
where="fsdax XFS"
on $xfs/image persist durable.append durable.truncate_down
where="fsdax ext4"
on $ext4/image persist durable.punch durable.copy_file_range
unset FOLIOFS_TEST_DEVICE

# What programs map.
direct() {
	name=$1 device=$2
	shift 2
	check "mkfs, $name" mkfs.foliofs -f $size "$device"
	check "fsck, $name" fsck.foliofs -n "$device"
	check "mount, $name" mount_on "$device" /mnt/d dax=always
	check "direct mapping, $name" "$BUILD/tests/vm/vm-direct" "$@" /mnt/d
	check "granularity, $name" says "granularity=$granularity" \
		foliofsctl status /mnt/d
	check "unmount, $name" unmount "$device" /mnt/d
	check "read-only, $name" mount_on "$device" /mnt/d ro
	check "files are there, $name" ls -l /mnt/d/$left
	check "unmount again, $name" unmount "$device" /mnt/d
	check "clean, $name" fsck.foliofs -n "$device"
}
granularity=cacheline left=clone size=
direct "devdax 4K" "$four"
left=refused
direct "devdax 2M" "$two" --refused
left=clone size="-s 256M"
direct "fsdax XFS" $xfs/image
direct "fsdax ext4" $ext4/image

check "XFS unmounts" umount $xfs
check "ext4 unmounts" umount $ext4
dmesg | grep -E 'WARNING|BUG|Oops' && echo "not ok - the kernel complains"
