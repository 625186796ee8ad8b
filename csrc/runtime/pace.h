/* pace.h: one thread or all of them, decided by measuring while a training run goes on.
 *
 * A second thread that other programs keep from running holds up the first one at every barrier, and a small step does
 * not gain from one. This changes during a run: now and then a short slice of time tries the other mode, and the faster
 * one goes on. Results do not depend on it.
 */
#ifndef FM_PACE_H
#define FM_PACE_H

#include <stddef.h>

#define FM_SLICE                                                                                                       \
    0.05 /* seconds between two polls for signals: half of the promised 0.1, since a micro-batch is finished */
#define FM_TRIAL 0.002 /* seconds of a trial, and of the slice before it that does not count */
#define FM_FIRST 0.01  /* seconds on one thread before all are tried for the first time: many fits end earlier */
#define FM_FRESH 0.02  /* seconds for which a measured rate is recent enough to change the mode */
#define FM_LONGEST 0.4 /* longest wait, in seconds, that failed trials lead to */
#define FM_RARELY 50   /* a trial of one thread is followed by at least this many times its own duration without one */
/* Seconds between trials of the other mode, while on one thread and while on all. Each failed trial doubles them, up to
 * FM_LONGEST: on a busy machine a trial costs several turns of the scheduler. The first trial often fails, while the
 * new threads still share this one's core for some 10 ms, so the next one comes soon. */
static const double fm_pace_waits[2] = {0.03, 0.5};

typedef struct fm_pace {
    int mode;           /* the faster one so far; 0: one thread, 1: all */
    int trial;          /* mode of the current slice */
    int slices;         /* slices in a row in that mode, at most 2 */
    double start;       /* of the current slice */
    double rate[2];     /* rows per second, by mode */
    double measured[2]; /* time of that measurement */
    double wait[2];     /* until the other mode is tried */
} fm_pace;

/* Choose the mode of the slice that begins now; returns the time at which it ends. A run begins on one thread, so that
 * a short fit wakes no other, unless its steps are long (fm_pace_begin_on_all). The first slice after a change does not
 * count: its caches are cold, or it wakes the threads. A slice that takes longer than FM_FIRST, as one long step does,
 * counts. */
static inline double fm_pace_begin(fm_pace *pace, int n_threads, double now) {
    const int before = pace->trial, other = 1 - pace->mode;
    const double age = now - pace->measured[other];
    const double wait = pace->wait[pace->mode] > 0 ? pace->wait[pace->mode] : fm_pace_waits[pace->mode];
    const int known = pace->measured[1] > 0; /* both modes have been measured, one thread being the first */
    pace->start = now;
    if (n_threads == 1) {
        pace->trial = 0;
        return now + FM_SLICE;
    }
    if (pace->slices < 2)
        return now + (pace->slices == 1 && !known && pace->trial == 0 ? FM_FIRST : FM_TRIAL);
    const int promising = known && pace->rate[other] > pace->rate[pace->mode];
    if (promising && age < FM_FRESH)
        pace->mode = pace->trial = other;
    else
        pace->trial = promising || !known || age > wait ? other : pace->mode;
    if (pace->trial == before)
        return now + FM_SLICE;
    pace->slices = 0;
    return now + FM_TRIAL;
}

/* Begin a run on all threads, whose first slice would take so long on one that a trial costs more than it may save. */
static inline void fm_pace_begin_on_all(fm_pace *pace, double now) {
    pace->mode = pace->trial = 1;
    pace->measured[0] = now;
}

/* The slice ends after this many rows. */
static inline void fm_pace_end(fm_pace *pace, ptrdiff_t rows, double now) {
    const double seconds = now - pace->start;
    pace->slices = pace->slices == 0 && seconds < FM_FIRST ? 1 : 2;
    if (pace->slices < 2)
        return;
    pace->rate[pace->trial] = (double)rows / (seconds > 1e-9 ? seconds : 1e-9);
    pace->measured[pace->trial] = now;
    if (pace->trial != pace->mode) {
        double *wait = &pace->wait[pace->mode];
        const double usual = fm_pace_waits[pace->mode], rarely = pace->mode == 1 ? FM_RARELY * seconds : 0;
        const double least = usual > rarely ? usual : rarely, longest = least > FM_LONGEST ? least : FM_LONGEST;
        const int failed = pace->rate[pace->trial] < pace->rate[pace->mode];
        *wait = !failed || *wait < least ? least : 2 * *wait < longest ? 2 * *wait : longest;
    }
}
#endif
