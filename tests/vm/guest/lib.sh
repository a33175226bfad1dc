# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/vm/guest/lib.sh - what the scripts of the guest share
#
# Lines that begin with `ok' or `not ok' are results; everything else that a
# test says is shown when it fails.
OUT=/mnt/out
LOG=/tmp/log
export PATH=$BUILD/tools:$BUILD/fs:$PATH

export FOLIOFS_BIN=$BUILD/fs/foliofs FOLIOFS_MKFS=$BUILD/tools/mkfs.foliofs
export FOLIOFS_FSCK=$BUILD/tools/fsck.foliofs
export FOLIOFS_CTL=$BUILD/tools/foliofsctl
# An emulated processor is slow.
export FOLIOFS_TEST_SLOW=10

# A minute for a program.  Our own functions use programs.
limited() {
	case $(command -v "$1") in
	/*) timeout -k 5 60 "$@" ;;
	*) "$@" ;;
	esac
}

# check NAME COMMAND... : it must end with 0.
check() {
	what=$1
	shift
	if limited "$@" >$LOG 2>&1; then
		echo "ok - $what"
	else
		echo "not ok - $what (ended with $?)"
		sed 's/^/# /' $LOG | tail -n 30
	fi
}

# says TEXT COMMAND... : whatever it ends with, it must say that.
says() {
	text=$1
	shift
	limited "$@" >/tmp/said 2>&1
	cat /tmp/said
	grep -q -e "$text" /tmp/said
}

# tap NAME COMMAND... : a program that speaks TAP; its tests count one by one.
tap() {
	name=$1
	shift
	timeout -k 5 200 "$@" >$LOG 2>&1
	rc=$?
	sed -n "s/^\(ok\|not ok\) [0-9]* -* */\1 - $name: /p" $LOG
	if [ $rc != 0 ]; then
		echo "not ok - $name (ended with $rc)"
		grep -v '^ok' $LOG | sed 's/^/# /' | tail -n 40
	fi
}

# A mount that is not in anybody's way when it fails.
mount_on() {
	mkdir -p "$2"
	timeout -k 5 60 foliofs "$1" "$2" ${3:+-o "$3"}
}

# The daemon has let go of the device when nobody has it locked.
unmount() {
	umount "$2" && timeout 30 flock --shared "$1" true
}

# namespaces MODE FIELD [ALIGNMENT]: of each one there is.
namespaces() {
	ndctl list -m "$1" | tr -d ' ",' | awk -F: -v want="$2" -v a="$3" '
		$1 == want { value = $2 }
		$1 == "align" { align = $2 }
		/^}/ && (a == "" || a == align) { print value }'
}

# Which device is which does not depend on the order of names.
two=/dev/$(namespaces devdax chardev 2097152)
four=/dev/$(namespaces devdax chardev 4096)
