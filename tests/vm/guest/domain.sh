# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/domain.sh - a platform that writes its caches back
. "${0%/*}/lib.sh"

check "list says cpu_cache" says cpu_cache foliofsctl list
check "mkfs, cpu_cache" mkfs.foliofs -f "$four"
check "mount, cpu_cache" mount_on "$four" /mnt/d dax=always
check "granularity is byte" says "granularity=byte" foliofsctl status /mnt/d
check "direct mapping, cpu_cache" "$BUILD/tests/vm/vm-direct" /mnt/d
check "unmount, cpu_cache" unmount "$four" /mnt/d
check "fsck, cpu_cache" fsck.foliofs -n "$four"
