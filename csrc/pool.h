/* The thread pool and the scratch memory of all compiled backends. */
#ifndef ELMAN_POOL_H
#define ELMAN_POOL_H

#include <stddef.h>

/* Run task(context, i) for i in 0..n-1, on this thread and at most `threads` - 1 others, with subnormals flushed to
 * zero; returns when all are done. Another caller at the same time runs its tasks on its own thread alone. */
typedef void elman_task(void *context, size_t i);
void elman_run(elman_task *task, void *context, size_t n, size_t threads);

/* The same for tasks that wait for each other: each has a thread of its own, all at the same time. Returns 0, having
 * run none, where so many are not to be had. */
int elman_run_team(elman_task *task, void *context, size_t n);

/* Within a team: come to a meeting, and go on when `expected` have come to `come`, which is to begin with 0, and to
 * have a cache line of its own. For a further meeting, expect as many more. Returns elman_stopped(), for which nobody
 * waits any longer. */
int elman_meet(size_t *come, size_t expected);

/* What a call of a kernel returns instead of 0 where it could not do what it was asked for. */
enum { ELMAN_NO_MEMORY = -1, ELMAN_INTERRUPTED = -2, ELMAN_RAISED = -3 };

/* A call that can be stopped: the jobs that a thread runs between elman_begin and elman_end. Once it is stopped, no
 * further task of it begins, and its outputs hold anything. elman_end returns 0, or the reason. */
typedef struct {
    int reason;
} elman_call;
void elman_begin(elman_call *call);
int elman_end(elman_call *call);

/* For tasks: stop the call that they belong to; and, once per block of steps, whether it is stopped (0, or the reason):
 * if so, leave. Of jobs outside of a call: nothing, and 0. */
void elman_stop(int reason);
int elman_stopped(void);

/* What the calling thread, from within elman_stopped, asks now and then: 0 to go on, 1 to stop its call, which is then
 * INTERRUPTED, -1 to go on and never ask on this thread again. */
void elman_set_poll(int (*poll)(void));

/* The limit on threads, at least 1. More than the machine's cores is legal. */
void elman_set_num_threads(int n);
/* A lower one for what the calling thread runs; 0: none. */
void elman_bound_threads(int n);
/* What both leave the calling thread. */
int elman_get_num_threads(void);

/* Scratch of at least `size` bytes, 64-byte aligned, contents undefined; NULL if there is no memory. Returned blocks
 * are kept and lent again, so that repeated calls of one shape allocate nothing. */
void *elman_lease(size_t size);
void elman_return(void *block);

#endif
