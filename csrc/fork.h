/* fork.h: what keeps a forked child from waiting for threads that it does not have. Included by _machine.pyx only, as it holds
 * the package's only variables.
 *
 * A forked child has one thread. The OpenMP runtime in it does not notice: at the next parallel region it would wait for ever for
 * the threads that it had started before. So before a fork it is told to let them go, and starts new ones at the next region, in
 * the parent as in the child. (Tried instead: the same call in the child, which waits for the lost threads too.) A child works on
 * one thread for good
 *     - if there is no such call, or it refuses, as it does while the thread that forks is in a region of another library;
 *     - if a region of ours runs in another thread meanwhile.
 * The call reaches the runtime that our regions use, whatever other copies are loaded: both names are bound when this package is
 * imported. In GNU's runtime each thread that starts regions has threads of its own, and these are all that its child would miss.
 */
#ifndef FM_FORK_H
#define FM_FORK_H

#include <stdatomic.h>

static atomic_int fm_regions; /* parallel regions of ours that run now, in all threads */
static int fm_alone;          /* this process must do with one thread; written in a new child only, while it has just one */

static inline void fm_region_begins(void) { atomic_fetch_add_explicit(&fm_regions, 1, memory_order_acq_rel); }
static inline void fm_region_ends(void) { atomic_fetch_sub_explicit(&fm_regions, 1, memory_order_acq_rel); }

#if FM_HAS_OPENMP && !defined(_WIN32)
#include <pthread.h>

static _Thread_local int fm_threads_remain; /* of the thread that forks, between the two handlers */

static void fm_before_fork(void) {
    fm_threads_remain = atomic_load_explicit(&fm_regions, memory_order_acquire) != 0 || !fm_let_threads_go();
}

static void fm_after_fork_in_child(void) {
    fm_alone |= fm_threads_remain;
    atomic_store_explicit(&fm_regions, 0, memory_order_relaxed);
}

/* Once per process. Returns 0, or the system's number of the error. */
static int fm_watch_forks(void) { return pthread_atfork(fm_before_fork, NULL, fm_after_fork_in_child); }
#else
static int fm_watch_forks(void) { return 0; }
#endif
#endif
