/* pace.h: one thread or all of them, found by measuring while a training run goes on. Included by _trainer.pyx only.
 *
 * A second thread that other programs keep from running holds the first one up at every barrier, and one that a small
 * step does not need costs more than it does. Which is the case changes while a run goes on: now and then a short slice
 * of time tries the other way, and the faster way goes on. Results do not depend on it.
 */
#ifndef FM_PACE_H
#define FM_PACE_H

#include <stddef.h>

#define FM_SLICE 0.05  /* seconds between polls for signals; half of the promise: a micro-batch is finished first */
#define FM_TRIAL 0.002 /* seconds of a trial, and of the slice before it that is not counted */
#define FM_FIRST 0.01  /* seconds on one thread before all are tried for the first time: many fits are over by then */
#define FM_FRESH 0.02  /* seconds for which a measured rate is good enough to change over */
#define FM_LONGEST 0.4 /* seconds that failed trials may make the next one wait */
#define FM_RARELY 50   /* times its own length that a trial of one thread is away from the next one, at least */
/* Seconds between trials of the other way, while on one thread and while on all. Each failed trial doubles them, up to
 * FM_LONGEST: on a busy machine a trial costs several of the scheduler's turns. The first one often fails while the new
 * threads still share this one's core, some 10 ms, so the next one comes soon. Tried: up to 4 s, which left whole runs
 * of a second on one thread after a moment's load. */
static const double fm_pace_waits[2] = {0.03, 0.5};

typedef struct fm_pace {
    int way;                                     /* 0: one thread, 1: all; the way that was found faster */
    int trial;                                   /* the way of the slice that runs now */
    int slices;                                  /* that ended so in a row, at most 2 */
    double start, rate[2], measured[2], wait[2]; /* of the slice; rows per second; when; until the other way is tried */
} fm_pace;

/* Choose the way of the slice that begins now; returns when it ends. One thread begins, so that a short fit wakes no
 * other. The first slice after a change is with cold caches, or wakes the threads: it teaches nothing. (Without it two
 * threads that take 50 us for a step of 76 on one passed for slower, and such runs spent half of their time on one.) A
 * slice that outlasts FM_FIRST, as of a step that takes so long, has outlasted that too. */
static inline double fm_pace_begin(fm_pace *pace, int n_threads, double now) {
    const int before = pace->trial, other = 1 - pace->way;
    const double age = now - pace->measured[other];
    const double wait = pace->wait[pace->way] > 0 ? pace->wait[pace->way] : fm_pace_waits[pace->way];
    const int known = pace->measured[1] > 0; /* both ways have been measured: one thread comes first */
    pace->start = now;
    if (n_threads == 1) {
        pace->trial = 0;
        return now + FM_SLICE;
    }
    if (pace->slices < 2)
        return now + (pace->slices == 1 && !known && pace->trial == 0 ? FM_FIRST : FM_TRIAL);
    const int promising = known && pace->rate[other] > pace->rate[pace->way];
    if (promising && age < FM_FRESH)
        pace->way = pace->trial = other;
    else
        pace->trial = promising || !known || age > wait ? other : pace->way;
    if (pace->trial == before)
        return now + FM_SLICE;
    pace->slices = 0;
    return now + FM_TRIAL;
}

/* The slice is over: so many rows went through. */
static inline void fm_pace_end(fm_pace *pace, ptrdiff_t rows, double now) {
    const double seconds = now - pace->start;
    pace->slices = pace->slices == 0 && seconds < FM_FIRST ? 1 : 2;
    if (pace->slices < 2)
        return;
    pace->rate[pace->trial] = (double)rows / (seconds > 1e-9 ? seconds : 1e-9);
    pace->measured[pace->trial] = now;
    if (pace->trial != pace->way) {
        double *wait = &pace->wait[pace->way];
        const double usual = fm_pace_waits[pace->way], rarely = pace->way == 1 ? FM_RARELY * seconds : 0;
        const double least = usual > rarely ? usual : rarely, longest = least > FM_LONGEST ? least : FM_LONGEST;
        const int failed = pace->rate[pace->trial] < pace->rate[pace->way];
        *wait = !failed || *wait < least ? least : 2 * *wait < longest ? 2 * *wait : longest;
    }
}
#endif
