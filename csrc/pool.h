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
 * have a cache line of its own. For a further meeting, expect as many more. */
void elman_meet(size_t *come, size_t expected);

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
