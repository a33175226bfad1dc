/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/dax/waitwake.pml - who sleeps is woken: entry lock, pins and breaks
 *
 *	spin -a waitwake.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
 *
 * looks at every interleaving; "errors: 0" is the result.  waitwake.sh runs it
 * and the versions with a bug (-D on the command line of spin), which must
 * fail: a process that sleeps for ever is an invalid end state.
 *
 * An atomic block is what happens under i_pages.lock, under the lock of a wait
 * queue, or in one atomic operation on a folio's counters.
 */

/* Part one: an entry.  Two lockers, a scan, a removal. */

#define NONE	 0
#define UNLOCKED 1
#define LOCKED	 2

byte slot = UNLOCKED;
byte owner = 255;
chan queue = [4] of { byte }; /* exclusive waiters, first in first out */
bool woken[4];
byte nr_gone = 0;

inline wake_next() {
	if
	:: len(queue) > 0 ->
		queue ? who;
		woken[who] = true
	:: else
	fi
}

inline wake_all() {
#ifdef BUG_WAKE_ONE /* B15 */
	wake_next()
#else
	do
	:: len(queue) > 0 ->
		queue ? who;
		woken[who] = true
	:: else -> break
	od
#endif
}

/* A fault: makes an entry if there is none. */
proctype locker(byte id) {
	byte who;
	byte times = 0;

	do
	:: times == 2 -> break
	:: else ->
again:
		atomic {
			if
			:: slot == LOCKED ->
				woken[id] = false;
				queue ! id;
				goto asleep
			:: else ->
				slot = LOCKED;
				owner = id
			fi
		}
		assert(slot == LOCKED && owner == id); /* I9 */
		atomic {
			assert(slot == LOCKED && owner == id);
			owner = 255;
			slot = UNLOCKED;
			wake_next()
		}
		times++
	od;
	goto done;
asleep:
	woken[id];
	goto again;
done:
	skip
}

/* Looks at the entry, does not lock it, passes the turn on. */
proctype scan(byte id) {
	byte who;

again:
	atomic {
		if
		:: slot == LOCKED ->
			woken[id] = false;
			queue ! id;
			goto asleep
		:: slot == UNLOCKED ->
#ifndef BUG_NO_BATON /* B16 */
			wake_next();
#endif
			goto done
		:: else -> goto done
		fi
	}
asleep:
	woken[id];
	goto again;
done:
	skip
}

proctype removal(byte id) {
	byte who;

again:
	atomic {
		if
		:: slot == LOCKED ->
			woken[id] = false;
			queue ! id;
			goto asleep
		:: slot == UNLOCKED ->
			slot = NONE;
			nr_gone++;
			wake_all();
			goto done
		:: else -> goto done
		fi
	}
asleep:
	woken[id];
	goto again;
done:
	skip
}

/*
 * Part two: a folio.  Another file maps it, two pins are released, a client
 * faults it again while the break has dropped its lock.
 */

byte refs = 4, maps = 2; /* two mappings, ours and the other's; two pins */
bool mapped = true;	 /* by the file that is broken */
bool exclusive = false;	 /* invalidate_lock */
byte nr_shared = 0;
byte nr_waiters = 0; /* what a waker reads without a lock */
bool queued = false, up = false;

inline put() {
	atomic {
		refs--;
		assert(refs >= maps); /* I1 */
#ifdef BUG_WAKE_AT_ZERO /* H1 */
		news = refs == 0
#else
		news = refs == maps
#endif
	}
	if
	:: news ->
		/* One read, and only then the lock of the queue. */
		if
		:: nr_waiters > 0 ->
			atomic {
				if
				:: queued ->
					queued = false;
					nr_waiters--;
					up = true
				:: else
				fi
			}
		:: else
		fi
	:: else
	fi
}

proctype pinner() {
	bool news;

	put()
}

proctype faulter() {
	bool news;
	byte times = 0;

	do
	:: times == 2 -> break
	:: else ->
		atomic { !exclusive -> nr_shared++ }
		if
		:: atomic { mapped -> nr_shared-- }
		:: atomic { !mapped -> refs++ } /* hold */
			atomic { refs++; maps++; mapped = true }
			put();
			nr_shared--
		fi;
		times++
	od
}

proctype breaker() {
	atomic { !exclusive && nr_shared == 0 -> exclusive = true }
again:
	atomic {
		if
		:: mapped -> refs--; maps--; mapped = false
		:: else
		fi
	}
	if
	:: refs == maps -> goto clean
	:: else
	fi;
	exclusive = false; /* H2 */
	/* folio_wait() */
recheck:
#ifdef BUG_CHECK_FIRST
	if
	:: refs == maps -> goto relock
	:: else
	fi;
#endif
	atomic { queued = true; nr_waiters++; up = false }
#ifndef BUG_CHECK_FIRST
	if
	:: refs == maps ->
		atomic {
			if
			:: queued -> queued = false; nr_waiters--
			:: else
			fi
		};
		goto relock
	:: else
	fi;
#endif
	up;
	if
	:: refs == maps -> goto relock
	:: else -> goto recheck
	fi;
relock:
	atomic { !exclusive && nr_shared == 0 -> exclusive = true };
	goto again;
clean:
	assert(refs == maps && !mapped);
	exclusive = false
}

init {
	atomic {
#ifdef PART_ENTRY
		run locker(0);
		run locker(1);
		run scan(2);
		run removal(3);
#else
		run pinner();
		run pinner();
		run faulter();
		run breaker();
#endif
	}
}
