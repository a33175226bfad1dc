/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dax/policy.h - what to do when somebody wants blocks that others still use
 *
 * A truncate, a punched hole or a reflink takes blocks away from a file.  It
 * unmaps them everywhere first (a layout break), and then somebody may still
 * have some of them pinned: a device transfers to them, or a program did not
 * give its mapping back when it was asked to.  A policy says what happens
 * then.  It is a table of functions; this header is all it needs:
 *
 *	#include <foliofs/policy.h>
 *
 *	static void busy(const uint64_t *conf, const struct policy_break *b,
 *			 struct policy_answer *a)
 *	{
 *		if (b->waited_ns >= conf[0] * 1000000)
 *			policy_fail(a, EBUSY);
 *		else
 *			policy_wait(a, conf[0] * 1000000 - b->waited_ns);
 *	}
 *
 *	const struct policy foliofs_policy = {
 *		.abi = POLICY_ABI,
 *		.size = sizeof(struct policy),
 *		.name = "patience",
 *		.what = "wait for a while, then say EBUSY",
 *		.keys = { { "ms", 500, 0, 60000, "how long" } },
 *		.busy = busy,
 *	};
 *
 * made with cc -shared -fPIC, and mounted with -o policy=/path/to/it.so:ms=20.
 *
 * A policy decides, and does nothing else.  Its functions are called in the
 * middle of an operation with locks of the daemon held: they do not sleep,
 * take no lock, make no system call, and keep nothing between two calls.  All
 * they may know is in the struct policy_break, all they can do is fill in the
 * struct policy_answer.  Two threads may ask at once.
 *
 * A policy cannot damage data.  Whatever it answers, a block that is in use
 * goes to nobody else; an answer that makes no sense, or that the operation
 * cannot follow, is refused (counted, logged once) and taken as POLICY_WAIT.
 *
 * Units.     Nanoseconds; pages of 4096 bytes for index and nr.
 * Errors.    Positive errno in policy_fail().
 * Locking.   None, see above.
 * Ownership. Both structs are the caller's and end with the call.
 * Source.    Linux fcntl(2) F_SETLEASE, xfs_break_dax_layouts().
 */
#ifndef DAX_POLICY_H
#define DAX_POLICY_H

#include <stdint.h>

/*
 * Of this header.  A policy of another number is not loaded.  It changes with
 * every change of a struct or of the meaning of a number.
 */
#define POLICY_ABI 1u

/* The operation that wants the blocks. */
enum policy_op {
	POLICY_OP_OTHER,
	POLICY_OP_TRUNCATE, /* either way; and open(O_TRUNC) */
	POLICY_OP_PUNCH,
	POLICY_OP_ZERO,
	POLICY_OP_ALLOCATE,
	POLICY_OP_UNSHARE,
	POLICY_OP_REFLINK, /* two files */
	POLICY_OP_COPY,
	POLICY_OP_DEDUPE,
	POLICY_OP_EVICT, /* the last user of the file has gone */
	POLICY_NR_OPS,
};

/* Why the policy is asked. */
enum policy_event {
	POLICY_BUSY,	   /* a page is in use, or still is */
	POLICY_UNANSWERED, /* the same, and somebody did not answer a recall */
	POLICY_TIMEOUT,	   /* the time of the last answer is over */
};

/* How somebody holds the page. */
enum policy_hold {
	POLICY_HOLD_MAP,   /* mapped, and it was not asked for yet */
	POLICY_HOLD_PIN,   /* pinned for one transfer */
	POLICY_HOLD_LONG,  /* pinned for as long as it likes */
	POLICY_HOLD_STUCK, /* mapped, asked for, and no answer in time */
	POLICY_HOLD_GONE,  /* ended its session, and has the memory still */
};

struct policy_holder {
	uint64_t client; /* number of its session, never used twice */
	uint64_t index;	 /* what it holds: pages of the file */
	uint64_t nr;
	uint64_t age_ns; /* of the hold */
	int32_t pid;
	uint32_t kind; /* enum policy_hold */
	char comm[16]; /* terminated */
};

/* policy_break.flags */
#define POLICY_CAN_DEFER 0x1u /* POLICY_DEFER is possible */
#define POLICY_CAN_FAIL	 0x2u /* POLICY_FAIL is possible */

/* One operation, as it stands. */
struct policy_break {
	uint32_t event; /* enum policy_event */
	uint32_t op;	/* enum policy_op */
	uint32_t flags; /* POLICY_CAN_ */
	int32_t pid;	/* of whoever asked for the operation; 0: nobody */
	char comm[16];	/* terminated */
	uint64_t ino;
	uint64_t index;	    /* the page that was found busy */
	uint64_t waited_ns; /* since the operation began, recalls included */
	uint64_t nr_rounds; /* times this was asked before */

	/* What was tried: 1 << enum policy_verdict of each answer so far. */
	uint64_t tried;
	uint64_t nr_revokes; /* clients that it ended */
	uint64_t revoked_ns; /* since the last of them, or 0 */
	uint32_t nr_holders; /* in holders[] */
	uint32_t nr_all;     /* there may be more than fit */
	/*
	 * Who has the page in use, as far as it is known.  None: the daemon
	 * itself has, which is a matter of microseconds.
	 */
	const struct policy_holder *holders;
};

/* Answers. */
enum policy_verdict {
	POLICY_NONE,   /* nothing was answered: refused */
	POLICY_WAIT,   /* until it is not busy, or for so long */
	POLICY_RECALL, /* the same, and take mappings back again */
	POLICY_FAIL,   /* the operation ends with an error, nothing changed */
	POLICY_DEFER,  /* the operation goes on, the blocks wait */
	POLICY_REVOKE, /* end a client, or all who hold the page */
	POLICY_UNSAFE, /* for tests: hand blocks on that are in use */
	POLICY_NR_VERDICTS,
};

/* How a client ends. */
enum policy_how {
	/*
	 * Its mappings of the file are taken for good: it gets SIGBUS where
	 * it touches them.  Who does not answer keeps them, as do pins.
	 */
	POLICY_UNMAP,
	/* SIGKILL for its process.  Nothing else ends a pin for certain. */
	POLICY_KILL,
};

struct policy_answer {
	uint32_t verdict; /* enum policy_verdict */
	int32_t error;	  /* POLICY_FAIL: a positive errno */
	/*
	 * WAIT, RECALL, REVOKE: ask again after so long at the latest.  0: not
	 * before something has changed.  Less than a millisecond is one.
	 */
	uint64_t wait_ns;
	uint64_t client; /* POLICY_REVOKE: which one; 0: all in holders[] */
	uint32_t how;	 /* POLICY_REVOKE: enum policy_how */
	uint32_t reserved;
};

/* A number that can be set, -o policy=NAME:key=7.  It becomes conf[i]. */
#define POLICY_KEYS 8u
struct policy_key {
	const char *name; /* NULL ends the list */
	uint64_t value;	  /* unless it is set */
	uint64_t min, max;
	const char *what;
};

struct policy {
	uint32_t abi;	  /* POLICY_ABI */
	uint32_t size;	  /* sizeof(struct policy) */
	const char *name; /* short: letters, digits, '-' and '_' */
	const char *what; /* one line */
	struct policy_key keys[POLICY_KEYS];

	/* Asked before each sleep.  The other two are optional: then busy. */
	void (*busy)(const uint64_t *conf, const struct policy_break *b,
		     struct policy_answer *a);
	void (*unanswered)(const uint64_t *conf, const struct policy_break *b,
			   struct policy_answer *a);
	void (*timeout)(const uint64_t *conf, const struct policy_break *b,
			struct policy_answer *a);

	/*
	 * How many milliseconds a client has to answer a recall before it
	 * counts as stuck; NULL or 0: a second.  Clients that are well answer
	 * in microseconds.
	 */
	uint64_t (*recall_ms)(const uint64_t *conf);
};

/* What a loaded policy is found by. */
extern const struct policy foliofs_policy;

/* Answers, in short. */
static inline void policy_wait(struct policy_answer *a, uint64_t ns)
{
	a->verdict = POLICY_WAIT;
	a->wait_ns = ns;
}

static inline void policy_fail(struct policy_answer *a, int error)
{
	a->verdict = POLICY_FAIL;
	a->error = error;
}

static inline void policy_defer(struct policy_answer *a)
{
	a->verdict = POLICY_DEFER;
}

/* All who hold the page; and look again after a while. */
static inline void policy_revoke(struct policy_answer *a, enum policy_how how,
				 uint64_t ns)
{
	a->verdict = POLICY_REVOKE;
	a->how = how;
	a->wait_ns = ns;
}

#define POLICY_MS UINT64_C(1000000)

#endif
