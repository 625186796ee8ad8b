/* pause.h: how a slab that takes long is left in the middle, for Python to look for signals, and taken up again where it was.
 * Included by _core.pyx only.
 *
 * A slab's work is a row of sections, with a barrier after each; a section is so many pieces for each thread. A thread that finds
 * that its time is up asks for a pause: all pass over the pieces of this section that are left, meet at its barrier, and leave.
 * When they come back they begin with this section, and pass over what they have done. Asked for is a pause in one section, not
 * as such: a thread that is late in leaving the barrier before it must not take the wish for one that was meant there.
 */
#ifndef FM_PAUSE_H
#define FM_PAUSE_H

#include <stdatomic.h>
#include <stddef.h>

#define FM_PATIENCE 0.03 /* seconds that a slab may outlast its slice before it is left */

/* How far a thread has come in its section. Padded, since each thread writes its own. */
typedef struct fm_progress {
    int section;
    ptrdiff_t piece, done, now; /* the one that is next; how many were done, in all and since the threads came back */
    ptrdiff_t begin, end;       /* the thread's units */
    int n_threads;              /* that they were shared out among */
    char apart[64];
} fm_progress;

typedef struct fm_pause {
    atomic_int asked; /* the section in which it is, plus 1; 0: none */
} fm_pause;

static inline void fm_pause_end(fm_pause *pause) { atomic_store_explicit(&pause->asked, 0, memory_order_relaxed); }
static inline int fm_pauses(fm_pause *pause, int section) {
    return atomic_load_explicit(&pause->asked, memory_order_relaxed) == section + 1;
}

/* The thread begins a section, or comes back to it. */
static inline void fm_section_begins(fm_progress *p, int section) {
    if (p->section != section)
        p->done = 0;
    p->section = section;
    p->piece = p->now = 0;
}

/* Whether the next piece is to be passed over: it was done before, or is to be done after a pause. late: the time is up; one
 * piece is done all the same, or the work would never end. */
static inline int fm_pass_over(fm_pause *pause, fm_progress *p, int late) {
    if (++p->piece <= p->done || fm_pauses(pause, p->section))
        return 1;
    if (late && p->now > 0) {
        atomic_store_explicit(&pause->asked, p->section + 1, memory_order_relaxed);
        return 1;
    }
    p->done = p->piece;
    p->now++;
    return 0;
}
#endif
