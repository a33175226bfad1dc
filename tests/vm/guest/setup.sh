# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/setup.sh - namespaces, what is said of them, and filesystems
. "${0%/*}/lib.sh"

make_namespaces() {
	ndctl disable-region region0 &&
		ndctl init-labels -f nmem0 &&
		ndctl enable-region region0 &&
		ndctl create-namespace -r region0 -m devdax -a 2M -s 320M &&
		ndctl create-namespace -r region0 -m devdax -a 4K -s 320M &&
		ndctl create-namespace -r region0 -m fsdax -s 400M &&
		ndctl create-namespace -r region0 -m fsdax -s 400M
}
check "ndctl makes namespaces" make_namespaces
two=/dev/$(namespaces devdax chardev 2097152)
four=/dev/$(namespaces devdax chardev 4096)
name=$(namespaces devdax dev 4096)
fsdax=$(namespaces fsdax dev | head -n 1)
pmem=/dev/$(namespaces fsdax blockdev | head -n 1)

# count NR PATTERN: so often in what list said.
count() {
	nr=$(grep -c -e "$2" /tmp/list.json)
	[ "$nr" = "$1" ] || {
		echo "$2: $nr times and not $1"
		return 1
	}
}

# list_has NR-FOLIOFS NR-HELD
list_has() {
	foliofsctl list --json >/tmp/list.json && cat /tmp/list.json &&
		count 1 '"provider": "ACPI.NFIT"' &&
		count 4 '"namespace": "namespace' &&
		count 2 '"mode": "devdax"' && count 2 '"mode": "fsdax"' &&
		count 1 '"alignment": 4096' && count 4 '"enabled": true' &&
		count 4 '"bad_blocks": 0' &&
		count "$1" '"foliofs": true' &&
		count "$2" '"holder": "foliofs\['
}
check "list" list_has 0 0
check "list as a table" foliofsctl list

for tool in "mkfs.foliofs" "fsck.foliofs" "foliofsctl dump"; do
	for dev in "$fsdax" "$pmem"; do
		check "$tool refuses fsdax, $dev" says \
			"ndctl create-namespace -f -e $fsdax -m devdax" \
			$tool "$dev"
	done
done
check "mount refuses fsdax" says "ndctl create-namespace -f -e $fsdax" \
	foliofs "$fsdax" /mnt

check "mkfs on a namespace's name" says "using $four" mkfs.foliofs "$name"
check "mkfs on a device's name" mkfs.foliofs "${two#/dev/}"
check "list knows a foliofs" list_has 2 0
ndctl disable-namespace "$name" >/dev/null 2>&1
check "a disabled namespace is refused" says "ndctl enable-namespace $name" \
	foliofs "$name" /mnt
ndctl enable-namespace "$name" >/dev/null 2>&1
check "mount by name" mount_on "$name" /mnt/a
check "list knows the holder" list_has 2 1
check "namespace in use" says "in use" mkfs.foliofs -f "$name"
check "unmount" unmount "$four" /mnt/a
check "dump" foliofsctl dump "$name"

# Filesystems for files on fsdax.
# shellcheck disable=SC2046
set -- $(namespaces fsdax blockdev | sed 's|^|/dev/|')
check "mkfs.xfs" mkfs.xfs -q -f -m reflink=1 "$1"
check "mkfs.ext4" mkfs.ext4 -q -F -b 4096 "$2"
check "mkfs.foliofs refuses the block device" says "devdax" \
	mkfs.foliofs -f "$1"
sync
