/* fork.h: what all calls in a process must know of each other. Included by _dispatch.pyx only, as it holds the
 * package's only variables.
 *
 * Callers from several Python threads share the processor: each takes its part of the threads (fm_share). Tried: each
 * as many as if it were alone. Two fits at once on two cores then kept 3.2 threads running on average.
 *
 * A forked child has one thread. The OpenMP runtime in it does not notice: at the next parallel region it would wait
 * for ever for the threads that it had started before. So before a fork it is told to let them go, and starts new ones
 * at the next region, in the parent as in the child. (Tried instead: the same call in the child, which waits for the
 * lost threads too.) A child works on one thread for good
 *     - if there is no such call, or it refuses, as it does while the thread that forks is in a region of another
 * library;
 *     - if a region of ours runs in another thread meanwhile: also one that a call has put aside (aside.h), whose
 * signal handler forks. The call reaches the runtime that our regions use, whatever other copies are loaded: both names
 * are bound when this package is imported. In GNU's runtime each thread that starts regions has threads of its own, and
 * these are all that its child would miss.
 */
#ifndef FM_FORK_H
#define FM_FORK_H

#include <stdatomic.h>

static atomic_int fm_regions; /* parallel regions of ours that run now, in all threads */
static atomic_int fm_callers; /* calls of ours that would use several threads, or train, in all threads */
static int fm_alone; /* this process must do with one thread; written in a new child only, while it has just one */

static inline void fm_region_begins(void) { atomic_fetch_add_explicit(&fm_regions, 1, memory_order_acq_rel); }
static inline void fm_region_ends(void) { atomic_fetch_sub_explicit(&fm_regions, 1, memory_order_acq_rel); }

static inline void fm_call_begins(void) { atomic_fetch_add_explicit(&fm_callers, 1, memory_order_relaxed); }

/* A child that was forked within a call, by a signal handler, ends a call that it has not counted. */
static inline void fm_call_ends(void) {
    int callers = atomic_load_explicit(&fm_callers, memory_order_relaxed);
    while (callers > 0 && !atomic_compare_exchange_weak_explicit(&fm_callers, &callers, callers - 1,
                                                                 memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* Of so many threads, those of one caller. It changes while others come and go; no result depends on it. */
static inline int fm_share(int threads) {
    const int callers = atomic_load_explicit(&fm_callers, memory_order_relaxed);
    return callers > 1 ? threads / callers : threads;
}

#if FM_HAS_OPENMP && !defined(_WIN32)
#include <pthread.h>

static _Thread_local int fm_threads_remain; /* of the thread that forks, between the two handlers */

static void fm_before_fork(void) {
#ifdef __SANITIZE_THREAD__
    /* The sanitizer forks where others vfork; LLVM's runtime, when it lets its threads go, lets go of Archer too. */
    fm_threads_remain = 1;
#else
    fm_threads_remain = atomic_load_explicit(&fm_regions, memory_order_acquire) != 0 || !fm_let_threads_go();
#endif
}

static void fm_after_fork_in_child(void) {
    fm_alone |= fm_threads_remain;
    atomic_store_explicit(&fm_regions, 0, memory_order_relaxed);
    atomic_store_explicit(&fm_callers, 0, memory_order_relaxed);
}

/* Once per process. Returns 0, or the system's number of the error. */
static int fm_watch_forks(void) { return pthread_atfork(fm_before_fork, NULL, fm_after_fork_in_child); }
#else
static int fm_watch_forks(void) { return 0; }
#endif
#endif
