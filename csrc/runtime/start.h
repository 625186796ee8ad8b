/* start.h: how many threads a region can have.
 *
 * An OpenMP runtime ends the process if it cannot create a thread. Limits of the system may allow fewer threads than
 * a region asks for: RLIMIT_NPROC, RLIMIT_AS, a control group's number of processes. So before a thread's team grows,
 * as many threads are created and joined, with stacks of the size that the runtime gives them. A race remains:
 * another process, or another library's thread, may take the room before the runtime does.
 */
#ifndef FM_START_H
#define FM_START_H

#define FM_MOST_THREADS 1024 /* more than the CPUs of any machine; a larger number is a mistake */

#if FM_HAS_OPENMP && !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

static _Thread_local int fm_team = 1; /* threads of this thread's last region of several: the runtime keeps them */

typedef struct fm_trial {
    pthread_t thread;
    pthread_mutex_t *gate;
    long id;
} fm_trial;

static void *fm_wait_at_gate(void *argument) {
    fm_trial *trial = argument;
#ifdef __linux__
    trial->id = syscall(SYS_gettid);
#endif
    pthread_mutex_lock(trial->gate);
    pthread_mutex_unlock(trial->gate);
    return NULL;
}

/* The stack size that the environment sets for the runtime's threads, in bytes; 0 if it sets none. */
static size_t fm_stack_size(void) {
    const char *text = getenv("OMP_STACKSIZE");
    char *unit;
    text = text ? text : getenv("GOMP_STACKSIZE");
    if (!text)
        return 0;
    const unsigned long size = strtoul(text, &unit, 10);
    while (*unit == ' ')
        unit++;
    const int letter = *unit | 32; /* in lower case */
    const int shift = letter == 'b' ? 0 : letter == 'm' ? 20 : letter == 'g' ? 30 : 10;
    return (size_t)size > SIZE_MAX >> shift ? 0 : (size_t)size << shift;
}

/* How many of n <= FM_MOST_THREADS + 1 threads can exist at once, beside those that exist. */
static int fm_try_threads(int n) {
    fm_trial trials[FM_MOST_THREADS + 1];
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    int created = 0;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    const size_t stack_size = fm_stack_size();
    if (stack_size)
        pthread_attr_setstacksize(&attributes, stack_size); /* where this fails, the runtime ignores the size too */
    pthread_mutex_lock(&gate);
    for (; created < n; created++) {
        trials[created].gate = &gate;
        if (pthread_create(&trials[created].thread, &attributes, fm_wait_at_gate, &trials[created]) != 0)
            break;
    }
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < created; i++) {
        pthread_join(trials[i].thread, NULL);
#ifdef __linux__
        /* A joined thread counts against the limit until the kernel has forgotten its number, a moment later. */
        for (int turn = 0; turn < 10000 && syscall(SYS_tgkill, getpid(), trials[i].id, 0) == 0; turn++)
            sched_yield();
#endif
    }
    pthread_attr_destroy(&attributes);
    return created;
}

/* As many of n threads as a region can have that this thread begins now. */
static int fm_startable(int n) {
    if (n > fm_team) {
        const int created = fm_try_threads(n - fm_team + 1) - 1; /* one more: room for what the runtime allocates */
        n = created < 0 ? fm_team : created < n - fm_team ? fm_team + created : n;
    }
    if (n > 1) /* a region of one thread leaves the team as it is */
        fm_team = n;
    return n;
}

static void fm_forget_team(void) { fm_team = 1; }
#else
static int fm_startable(int n) { return n; }
static void fm_forget_team(void) {}
#endif
#endif
