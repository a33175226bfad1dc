# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/virtual.sh - devices that libpmem2 takes for real ones
. "${0%/*}/lib.sh"

ndctl list -R >/tmp/regions
region=$(tr -d ' ",' </tmp/regions | awk -F: '/^dev:/ { print $2 }' |
	grep -v region0 | head -n 1)
for n in $(ndctl list -i -r "$region" | tr -d ' ",' |
	awk -F: '/^dev:/ { print $2 }'); do
	old=$n
done
check "devdax on virtio-pmem" ndctl create-namespace -f \
	${old:+-e "$old"} -r "$region" -m devdax
device=/dev/$(ndctl list -r "$region" | tr -d ' ",' |
	awk -F: '/^chardev:/ { print $2 }')
check "mkfs warns of virtio-pmem" says "is virtio-pmem" \
	mkfs.foliofs -f "$device"
check "mount warns of virtio-pmem" says "is virtio-pmem" \
	mount_on "$device" /mnt/v
check "unmount virtio-pmem" unmount "$device" /mnt/v
