/* fork.h: state that all calls in a process share, and what happens to it in a forked child.
 *
 * Callers from several Python threads share the processor: each gets its part of the threads (fm_thread_share).
 *
 * A forked child has one thread, but its OpenMP runtime does not know: at the next parallel region it would wait
 * forever for the threads of its parent. So before a fork the runtime is told to stop its threads; parent and child
 * start new ones at the next region. (The same call in the child waits for the lost threads too.) A child works on one
 * thread from then on
 *     - if the runtime has no such call, or it fails, as it does while the forking thread is in a region of another
 * library;
 *     - if one of our regions runs in another thread at that moment.
 * The call reaches the runtime of our own regions, whatever other copies are loaded: both names are bound when this
 * package is imported. In GNU's runtime each thread that starts regions has its own threads, and a child misses only
 * those of its own.
 */
#ifndef FM_FORK_H
#define FM_FORK_H

#include <stdatomic.h>

#include "start.h"

static atomic_int fm_regions;  /* our parallel regions that run now, in all threads */
static atomic_int fm_callers;  /* our calls that use several threads, or train, in all threads */
static int fm_single_threaded; /* this process works on one thread; written only in a new child, which has just one */

static inline void fm_region_begins(void) { atomic_fetch_add_explicit(&fm_regions, 1, memory_order_acq_rel); }
static inline void fm_region_ends(void) { atomic_fetch_sub_explicit(&fm_regions, 1, memory_order_acq_rel); }

static inline void fm_caller_begins(void) { atomic_fetch_add_explicit(&fm_callers, 1, memory_order_relaxed); }

/* Never below 0: a child that a signal handler forked in a call ends a call that it has not counted. */
static inline void fm_caller_ends(void) {
    int callers = atomic_load_explicit(&fm_callers, memory_order_relaxed);
    while (callers > 0 && !atomic_compare_exchange_weak_explicit(&fm_callers, &callers, callers - 1,
                                                                 memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* One caller's part of the threads. It changes while other calls begin and end; no result depends on it. */
static inline int fm_thread_share(int threads) {
    const int callers = atomic_load_explicit(&fm_callers, memory_order_relaxed);
    return callers > 1 ? threads / callers : threads;
}

#if FM_HAS_OPENMP && !defined(_WIN32)
#include <pthread.h>

static _Thread_local int fm_threads_survive; /* set by the handler before a fork, for the one in the child */

static void fm_before_fork(void) {
#ifdef __SANITIZE_THREAD__
    /* The sanitizer forks where others vfork, and LLVM's runtime loses Archer when it stops its threads. */
    fm_threads_survive = 1;
#else
    fm_threads_survive = atomic_load_explicit(&fm_regions, memory_order_acquire) != 0 || !fm_stop_threads();
#endif
    if (!fm_threads_survive)
        fm_forget_team();
}

static void fm_after_fork_in_child(void) {
    fm_single_threaded |= fm_threads_survive;
    atomic_store_explicit(&fm_regions, 0, memory_order_relaxed);
    atomic_store_explicit(&fm_callers, 0, memory_order_relaxed);
}

/* Once per process. Returns 0 or an error number. */
static int fm_register_fork_handlers(void) { return pthread_atfork(fm_before_fork, NULL, fm_after_fork_in_child); }
#else
static int fm_register_fork_handlers(void) { return 0; }
#endif
#endif
