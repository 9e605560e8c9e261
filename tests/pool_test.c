/* The thread pool by itself, for the sanitizers (tests/sanitize.sh): jobs, teams, scratch, forks, four callers at once.
 * What tasks write is plain memory, so that ThreadSanitizer sees whether the pool orders it. */
#include "pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                        \
    do {                                                                   \
        if (!(what)) {                                                     \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #what); \
            abort();                                                       \
        }                                                                  \
    } while (0)

#define TASKS 100
#define MEMBERS 4
#define STEPS 200

static void count(void *context, size_t i) { ((int *)context)[i]++; }

static void run_jobs(void) {
    for (size_t threads = 1; threads <= 8; threads++)
        for (size_t n = 0; n <= TASKS; n += 1 + n / 3) {
            int done[TASKS] = {0};
            elman_run(count, done, n, threads);
            for (size_t i = 0; i < TASKS; i++) CHECK(done[i] == (i < n));
        }
}

typedef struct {
    size_t come[8];
    int said[2][MEMBERS]; /* in even steps and in odd ones */
} round_table;

static void talk(void *context, size_t self) {
    round_table *t = context;
    for (int step = 0; step < STEPS; step++) {
        t->said[step % 2][self] = step;
        elman_meet(t->come, (size_t)(step + 1) * MEMBERS);
        for (size_t i = 0; i < MEMBERS; i++) CHECK(t->said[step % 2][i] == step);
    }
}

static int run_team(void) {
    round_table t = {{0}};
    if (!elman_run_team(talk, &t, MEMBERS)) return 0;
    CHECK(t.come[0] == MEMBERS * STEPS);
    return 1;
}

/* Calls that are stopped: by a task, and by what the calling thread asks. */
static int asked, answer;

static void nothing(void *context, size_t i) { (void)context, (void)i; }

static int say(void) {
    elman_call call; /* of its own */
    elman_begin(&call);
    elman_run(nothing, NULL, TASKS, MEMBERS);
    elman_stop(ELMAN_RAISED);
    CHECK(elman_end(&call) == ELMAN_RAISED);
    asked++;
    return answer;
}

typedef struct {
    size_t come[8];
    int ran, stops; /* tasks that ran; the one that stops the call, if any */
} stopping;

static void ring(void *context, size_t i) {
    stopping *s = context;
    __atomic_fetch_add(&s->ran, 1, __ATOMIC_RELAXED);
    if ((int)i == s->stops) elman_stop(ELMAN_RAISED);
    for (struct timespec pause = {0, 1000000}; s->stops < 0 && !elman_stopped();) nanosleep(&pause, NULL);
}

static void wait_for_nobody(void *context, size_t i) {
    stopping *s = context;
    elman_meet(s->come, MEMBERS);
    if (i == 0)
        elman_stop(ELMAN_RAISED);
    else
        CHECK(elman_meet(s->come, 2 * MEMBERS + 1) == ELMAN_RAISED); /* one more than there are */
}

static void stop_calls(void) {
    elman_call call;
    for (size_t threads = 1; threads <= MEMBERS; threads++) {
        stopping s = {.stops = 3};
        elman_begin(&call);
        elman_run(ring, &s, TASKS, threads);
        CHECK(threads > 1 || s.ran == 4); /* others may have run on meanwhile */
        const int before = s.ran;
        elman_run(ring, &s, TASKS, threads); /* nothing more of this call */
        CHECK(s.ran == before && elman_stopped() == ELMAN_RAISED);
        CHECK(elman_end(&call) == ELMAN_RAISED && elman_stopped() == 0);
        elman_run(ring, &s, TASKS, threads); /* of no call: nothing to be stopped */
        CHECK(s.ran == before + TASKS);
    }
    stopping team = {.stops = -1};
    elman_begin(&call);
    const int has_run = elman_run_team(wait_for_nobody, &team, MEMBERS); /* unless another thread has the pool */
    CHECK(elman_end(&call) == (has_run ? ELMAN_RAISED : 0));
}

static void answer_questions(void) {
    elman_call call;
    for (answer = 1; answer >= -1; answer -= 2) {
        stopping s = {.stops = answer > 0 ? -1 : 0};
        asked = 0;
        elman_begin(&call);
        if (answer < 0)
            for (int i = 0; i < 200; i++) usleep(1000), elman_stopped(); /* asked once, and told to leave it */
        elman_run(ring, &s, MEMBERS, MEMBERS);
        CHECK(elman_end(&call) == (answer > 0 ? ELMAN_INTERRUPTED : ELMAN_RAISED));
        CHECK(asked == 1);
    }
}

static void use_scratch(void) {
    for (size_t size = 64; size < 1 << 20; size *= 4) {
        unsigned char *a = elman_lease(size), *b = elman_lease(size + 1);
        CHECK(a && b && (size_t)a % 64 == 0 && (size_t)b % 64 == 0);
        memset(a, 1, size), memset(b, 2, size + 1);
        CHECK(a[0] == 1 && a[size - 1] == 1);
        elman_return(a), elman_return(b);
    }
}

static void *everything(void *unused) {
    for (int i = 0; i < 5; i++) run_jobs(), run_team(), use_scratch(), stop_calls();
    return unused;
}

static void fork_and_run(void) {
    pid_t child = fork();
    if (child == 0) {
        run_jobs();
        _exit(run_team() ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

int main(void) {
    elman_set_num_threads(0);
    CHECK(elman_get_num_threads() == 1 && !run_team());
    elman_set_num_threads(MEMBERS - 1);
    CHECK(!run_team());
    elman_set_num_threads(MEMBERS);
    CHECK(run_team());
    pthread_t callers[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&callers[i], NULL, everything, NULL) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(callers[i], NULL) == 0);
    CHECK(run_team()); /* the callers' jobs have given the pool back */
    elman_set_poll(say);
    answer_questions();
    fork_and_run();
    usleep(10000); /* workers spin for some microseconds, then sleep */
    double before = cpu_seconds();
    usleep(300000);
    CHECK(cpu_seconds() - before < 0.03);
    return 0;
}
