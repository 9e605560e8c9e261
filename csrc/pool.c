/* A pool for tasks of microseconds: after a job, since the next is likely near, workers spin for a moment, then yield
 * to whatever else wants their core for another, then sleep.
 *
 * A job is claimed through one atomic word, (generation << 32 | unclaimed tasks): a worker that comes late can only
 * take tasks of the job that is running, and that job's fields stay put until its last task is done.
 */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#define relax() _mm_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

#define MAX_THREADS 1024
#define SPIN_NANOSECONDS 20000      /* longer is in the way of what else wants the cores */
#define YIELD_NANOSECONDS 200000    /* from then to here a worker is awake, but lets everything else run first */
#define POLLS 1000                  /* of a meeting, before it yields: about a microsecond */
#define ASKING_NANOSECONDS 50000000 /* between questions to `poll`, which may wait some milliseconds for its answer */

static struct {
    elman_task *task;
    void *context;
    uint32_t n;
    elman_call *call;
} job;
static atomic_uint_fast64_t claims;                      /* generation << 32 | tasks nobody has claimed yet */
static atomic_uint unfinished;                           /* tasks of the job that are not done */
static atomic_int helpers;                               /* workers below this number help with the job */
static atomic_int sleepers;                              /* workers waiting for `wake` */
static atomic_int limit = 1;                             /* elman_set_num_threads */
static _Thread_local int bound;                          /* elman_bound_threads */
static int n_workers;                                    /* started; guarded by `busy` */
static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held by the thread whose job runs */
static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static _Thread_local elman_call *current;   /* which the task at work belongs to */
static _Thread_local elman_call *own;       /* which this thread has begun */
static _Thread_local int64_t next_question; /* when this thread asks `poll` again; -1: never */
static int (*_Atomic poll)(void);

/* The processor's mode of arithmetic, and the bits of it that flush subnormals, in results and operands. */
#if defined(__x86_64__) || defined(__i386__)
#define FLUSH UINT64_C(0x8040)
static uint64_t get_mode(void) { return _mm_getcsr(); }
static void set_mode(uint64_t mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__)
#define FLUSH (UINT64_C(1) << 24)
static uint64_t get_mode(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static void set_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
#define FLUSH UINT64_C(0)
static uint64_t get_mode(void) { return 0; }
static void set_mode(uint64_t mode) { (void)mode; }
#endif

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int reason_of(elman_call *call) { return __atomic_load_n(&call->reason, __ATOMIC_RELAXED); }

void elman_begin(elman_call *call) {
    call->reason = 0;
    current = own = call;
}

int elman_end(elman_call *call) {
    current = own = NULL;
    return reason_of(call);
}

void elman_stop(int reason) {
    int none = 0; /* the first reason stays */
    if (current) __atomic_compare_exchange_n(&current->reason, &none, reason, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Ask `poll`, if it is time to. What answers may make calls of its own, which are no part of this one. */
static void ask(void) {
    int (*question)(void) = atomic_load(&poll);
    if (next_question < 0 || !question) return;
    int64_t now = nanoseconds();
    if (now < next_question) return;
    next_question = now + ASKING_NANOSECONDS;
    elman_call *const call = own;
    const uint64_t mode = get_mode();
    set_mode(mode & ~FLUSH);
    current = own = NULL;
    const int answer = question();
    current = own = call;
    set_mode(mode);
    if (answer > 0) elman_stop(ELMAN_INTERRUPTED);
    if (answer < 0) next_question = -1;
}

int elman_stopped(void) {
    if (!current) return 0;
    if (current == own && !reason_of(current)) ask();
    return reason_of(current);
}

void elman_set_poll(int (*question)(void)) { atomic_store(&poll, question); }

/* Is there something to do for this worker? `helpers` is set before a job's claims. */
static int wanted(intptr_t worker) { return (uint32_t)atomic_load(&claims) != 0 && worker < atomic_load(&helpers); }

static void work(void) {
    uint_fast64_t seen = atomic_load(&claims);
    while ((uint32_t)seen != 0) {
        if (!atomic_compare_exchange_weak(&claims, &seen, seen - 1)) continue;
        current = job.call;
        if (!elman_stopped()) job.task(job.context, job.n - (uint32_t)seen);
        atomic_fetch_sub(&unfinished, 1);
        seen = atomic_load(&claims);
    }
}

static void *worker(void *number) {
    intptr_t self = (intptr_t)number;
    set_mode(get_mode() | FLUSH);
    for (;;) {
        const int64_t begin = nanoseconds();
        for (int64_t now = begin; !wanted(self) && now < begin + YIELD_NANOSECONDS; now = nanoseconds())
            if (now < begin + SPIN_NANOSECONDS)
                for (int i = 0; i < 32; i++) relax();
            else
                sched_yield();
        if (!wanted(self)) {
            pthread_mutex_lock(&sleep_lock);
            atomic_fetch_add(&sleepers, 1);
            while (!wanted(self)) pthread_cond_wait(&wake, &sleep_lock);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&sleep_lock);
        }
        work();
    }
    return NULL;
}

/* Start workers until there are n; fewer where the system refuses. */
static void start_workers(size_t n) {
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 1 << 20);
    for (pthread_t thread; (size_t)n_workers < n; n_workers++)
        if (pthread_create(&thread, &detached, worker, (void *)(intptr_t)n_workers)) break;
    pthread_attr_destroy(&detached);
}

static void run_alone(elman_task *task, void *context, size_t n) {
    for (size_t i = 0; i < n && !(i && elman_stopped()); i++) task(context, i);
}

static void run_with_helpers(elman_task *task, void *context, size_t n, size_t threads) {
    job.task = task, job.context = context, job.n = (uint32_t)n, job.call = current;
    atomic_store(&helpers, (int)threads - 1);
    atomic_store(&unfinished, (unsigned)n);
    uint_fast64_t generation = (atomic_load(&claims) >> 32) + 1;
    atomic_store(&claims, generation << 32 | n);
    if (atomic_load(&sleepers)) {
        pthread_mutex_lock(&sleep_lock);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&sleep_lock);
    }
    work();
    for (int64_t deadline = nanoseconds() + SPIN_NANOSECONDS; atomic_load(&unfinished); elman_stopped())
        if (nanoseconds() < deadline)
            relax();
        else
            sched_yield();
}

void elman_run(elman_task *task, void *context, size_t n, size_t threads) {
    if (current && reason_of(current)) return;
    const uint64_t mode = get_mode();
    set_mode(mode | FLUSH);
    size_t most = (size_t)elman_get_num_threads();
    if (threads > most) threads = most;
    if (threads > n) threads = n;
    if (threads > 1 && n < UINT32_MAX && pthread_mutex_trylock(&busy) == 0) {
        start_workers(threads - 1);
        run_with_helpers(task, context, n, threads);
        pthread_mutex_unlock(&busy);
    } else {
        run_alone(task, context, n);
    }
    set_mode(mode);
}

/* Nobody leaves a task before all have come to its first meeting: so each of n threads claims one. */
int elman_run_team(elman_task *task, void *context, size_t n) {
    if (n < 2 || n > (size_t)elman_get_num_threads() || pthread_mutex_trylock(&busy)) return 0;
    start_workers(n - 1);
    const int is_complete = (size_t)n_workers >= n - 1;
    if (is_complete) {
        const uint64_t mode = get_mode();
        set_mode(mode | FLUSH);
        run_with_helpers(task, context, n, n);
        set_mode(mode);
    }
    pthread_mutex_unlock(&busy);
    return is_complete;
}

/* A meeting takes a fraction of a microsecond if all have a core. Where they have not, give this one to who is missing,
 * and soon: on a busy machine each step would wait that long. */
int elman_meet(size_t *come, size_t expected) {
    int reason = 0;
    if (__atomic_add_fetch(come, 1, __ATOMIC_ACQ_REL) == expected) return 0;
    for (int polls = 0; !reason && __atomic_load_n(come, __ATOMIC_ACQUIRE) < expected; polls++)
        if (polls >= POLLS) sched_yield(), reason = elman_stopped();
    return reason;
}

void elman_set_num_threads(int n) { atomic_store(&limit, n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n); }
void elman_bound_threads(int n) { bound = n; }
int elman_get_num_threads(void) {
    int most = atomic_load(&limit);
    return bound > 0 && bound < most ? bound : most;
}

/* Scratch: a short list of free blocks, each with a header in front. */
#define KEPT 16
#define ALIGNMENT 64

typedef struct {
    size_t size;
    void *memory; /* what malloc returned */
} header;

static void *kept[KEPT];
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

static header *header_of(void *block) { return (header *)block - 1; }
static size_t size_of(void *block) { return header_of(block)->size; }

void *elman_lease(size_t size) {
    void *block = NULL;
    int best = -1;
    pthread_mutex_lock(&kept_lock);
    for (int i = 0; i < KEPT; i++)
        if (kept[i] && size_of(kept[i]) >= size && (best < 0 || size_of(kept[i]) < size_of(kept[best]))) best = i;
    if (best >= 0) block = kept[best], kept[best] = NULL;
    pthread_mutex_unlock(&kept_lock);
    if (block) return block;
    char *memory = size <= SIZE_MAX - 2 * ALIGNMENT ? malloc(size + 2 * ALIGNMENT) : NULL;
    if (!memory) return NULL;
    block = memory + 2 * ALIGNMENT - (uintptr_t)memory % ALIGNMENT;
    *header_of(block) = (header){size, memory};
    return block;
}

void elman_return(void *block) {
    if (!block) return;
    pthread_mutex_lock(&kept_lock);
    int place = 0; /* a free place, else that of the smallest block */
    for (int i = 0; i < KEPT; i++) {
        if (!kept[i]) {
            place = i;
            break;
        }
        if (size_of(kept[i]) < size_of(kept[place])) place = i;
    }
    void *const evicted = kept[place];
    kept[place] = block;
    pthread_mutex_unlock(&kept_lock);
    if (evicted) free(header_of(evicted)->memory);
}

#ifndef _WIN32
/* A forked child has none of the workers and may have inherited any lock in any state. */
static void reset_after_fork(void) {
    n_workers = 0;
    next_question = 0; /* this thread is the child's main one, whatever it was before */
    atomic_store(&claims, 0);
    atomic_store(&sleepers, 0);
    pthread_mutex_init(&busy, NULL);
    pthread_mutex_init(&sleep_lock, NULL);
    pthread_mutex_init(&kept_lock, NULL);
    pthread_cond_init(&wake, NULL);
}

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, reset_after_fork); }
#endif
