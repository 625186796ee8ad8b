/* claim.h: threads that take pieces of work one after the other, as each becomes free. If another program, or another
 * library's threads that spin, hold up one of them, the others do most of the work.
 */
#ifndef FM_CLAIM_H
#define FM_CLAIM_H

#include <stdatomic.h>
#include <stddef.h>

/* The next piece. It only counts up: pieces of several phases are numbered on. */
typedef struct fm_counter {
    atomic_ptrdiff_t next;
    char padding[56];
} fm_counter;

static inline void fm_counter_set(fm_counter *c, ptrdiff_t next) { atomic_store(&c->next, next); }

/* The number of the next piece before `end`, which no other thread gets; -1 if there is none. */
static inline ptrdiff_t fm_claim(fm_counter *c, ptrdiff_t end) {
    ptrdiff_t next = atomic_load_explicit(&c->next, memory_order_relaxed);
    while (next < end)
        if (atomic_compare_exchange_weak_explicit(&c->next, &next, next + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return next;
    return -1;
}
#endif
