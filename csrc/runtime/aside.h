/* aside.h: a slab that takes long is worked on aside, on a thread of its own, while the thread that was called looks for signals
 * and may ask the work to be left. Included by _trainer.pyx only.
 *
 * Python runs signal handlers in one thread alone, with the interpreter's lock, and they may do anything, fork too: not in a
 * parallel region. So the region is another thread's, and what is left is given up, not kept in order to go on: phase 1 changes
 * nothing that lasts. Tried instead: to leave the region at any piece of work, look, and come back to it. Every loop then had to
 * know where it had been, and what is costly to begin was begun again at each look.
 */
#ifndef FM_ASIDE_H
#define FM_ASIDE_H

#include <stdatomic.h>

#define FM_LOOK 0.01 /* seconds between two looks for signals */
#define FM_LONG 0.02 /* seconds of a slab that is worth a thread of its own, which takes some 0.0001 to start and end */

/* Asked by the thread that waits. Found left by those that work: work of phase 1 (1), of gradients that are kept (2). Each is
 * read right after the barrier that ends such work, so that all threads read the same, though one may be in the next phase
 * already. */
typedef struct fm_leave {
    atomic_int asked, left;
} fm_leave;

static inline void fm_leave_begin(fm_leave *leave) {
    atomic_store_explicit(&leave->asked, 0, memory_order_relaxed);
    atomic_store_explicit(&leave->left, 0, memory_order_relaxed);
}
static inline void fm_leave_ask(fm_leave *leave) { atomic_store_explicit(&leave->asked, 1, memory_order_relaxed); }
static inline int fm_leave_asked(fm_leave *leave) { return atomic_load_explicit(&leave->asked, memory_order_relaxed); }

/* Whether to pass over the next piece of such work. */
static inline int fm_leaves(fm_leave *leave, int phase) {
    if (!fm_leave_asked(leave))
        return 0;
    atomic_fetch_or_explicit(&leave->left, phase, memory_order_relaxed);
    return 1;
}
static inline int fm_left(fm_leave *leave, int phase) { return atomic_load_explicit(&leave->left, memory_order_relaxed) & phase; }

#if defined(_WIN32)
/* Signals wait for the slab's end there. */
typedef struct fm_aside {
    int unused;
} fm_aside;

static inline int fm_aside_begin(fm_aside *a, void (*work)(void *), void *what) { return (void)a, (void)work, (void)what, 0; }
static inline int fm_aside_wait(fm_aside *a) { return (void)a, 1; }
static inline int fm_aside_end(fm_aside *a) { return (void)a, 1; }
#else
#include <pthread.h>
#include <time.h>
#include <unistd.h>

typedef struct fm_aside {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ends;
    int ended;
    pid_t process;
    void (*work)(void *what);
    void *what;
} fm_aside;

static void *fm_aside_run(void *a_) {
    fm_aside *a = a_;
    a->work(a->what);
    pthread_mutex_lock(&a->lock);
    a->ended = 1;
    pthread_cond_signal(&a->ends);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Returns whether the work has begun: the system may have no thread to give. */
static inline int fm_aside_begin(fm_aside *a, void (*work)(void *), void *what) {
    pthread_condattr_t clock;
    a->ended = 0, a->process = getpid(), a->work = work, a->what = what;
    if (pthread_condattr_init(&clock) != 0)
        return 0;
#if !defined(__APPLE__)
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
#endif
    int refused = pthread_cond_init(&a->ends, &clock) != 0;
    pthread_condattr_destroy(&clock);
    if (refused)
        return 0;
    if (pthread_mutex_init(&a->lock, NULL) == 0) {
        if (pthread_create(&a->thread, NULL, fm_aside_run, a) == 0)
            return 1;
        pthread_mutex_destroy(&a->lock);
    }
    pthread_cond_destroy(&a->ends);
    return 0;
}

/* Waits until the work has ended, FM_LOOK at most, and returns whether there is nothing to wait for: a child that was forked
 * meanwhile does not have the thread. */
static inline int fm_aside_wait(fm_aside *a) {
    const long nanoseconds = (long)(FM_LOOK * 1e9);
    if (a->process != getpid())
        return 1;
    pthread_mutex_lock(&a->lock);
    if (!a->ended) {
#if defined(__APPLE__)
        const struct timespec wait = {0, nanoseconds};
        pthread_cond_timedwait_relative_np(&a->ends, &a->lock, &wait);
#else
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += nanoseconds;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&a->ends, &a->lock, &until);
#endif
    }
    const int ended = a->ended;
    pthread_mutex_unlock(&a->lock);
    return ended;
}

/* Waits for the end of the work, and lets the thread go; 0 in such a child, where the work will never end. */
static inline int fm_aside_end(fm_aside *a) {
    if (a->process != getpid())
        return 0;
    pthread_join(a->thread, NULL);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->ends);
    return 1;
}
#endif
#endif
