/* barrier.h: where the threads of a training step wait for each other. Spins briefly, since a phase takes microseconds,
 * then yields, since on an oversubscribed machine the thread that it waits for may need this core. C11 atomics, so that
 * a thread sanitizer understands it. OpenMP's own barrier is no alternative: Cython cannot name it, and it blocks
 * in the kernel by default.
 */
#ifndef FM_BARRIER_H
#define FM_BARRIER_H

#include <stdatomic.h>
#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#define FM_YIELD() SwitchToThread()
#else
#include <sched.h>
#define FM_YIELD() sched_yield()
#endif
#if defined(__x86_64__)
#define FM_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define FM_PAUSE() __asm__ volatile("yield")
#else
#define FM_PAUSE() ((void)0)
#endif

#define FM_SPINS 4000 /* some 50 us: longer than any imbalance of a step that gains from two threads */

/* Padded, not aligned: it may be part of a Python object, which is aligned to 16 bytes only. */
typedef struct fm_barrier {
    atomic_int arrived;
    char padding_1[60];
    atomic_uint phase; /* may overflow: only changes count */
    char padding_2[60];
} fm_barrier;

static inline void fm_barrier_init(fm_barrier *b) {
    atomic_init(&b->arrived, 0);
    atomic_init(&b->phase, 0);
}

/* Returns when all n threads have called it; what they wrote before is then visible to all. */
static inline void fm_barrier_wait(fm_barrier *b, int n) {
    if (n == 1)
        return;
    const unsigned phase = atomic_load_explicit(&b->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) == n - 1) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&b->phase, memory_order_acquire) == phase; spins++) {
        if (spins < FM_SPINS)
            FM_PAUSE();
        else
            FM_YIELD();
    }
}
#endif
