# All OpenMP calls of the package, with their counterparts for builds without OpenMP, and a clock.

cdef extern from *:
    """
    #ifdef _WIN32
    #ifndef WIN32_LEAN_AND_MEAN
    #define WIN32_LEAN_AND_MEAN
    #endif
    #include <windows.h>
    #else
    #include <time.h>
    #endif
    #ifdef _OPENMP
    #include <omp.h>
    #define FM_HAS_OPENMP 1
    #else
    #define FM_HAS_OPENMP 0
    static inline int omp_get_max_threads(void) { return 1; }
    static inline int omp_get_num_threads(void) { return 1; }
    #endif
    /* Of the calling thread, outside of a region. Returns 1, or 0 on failure. setup.py defines FM_HAS_PAUSE. */
    static inline int fm_stop_threads(void) {
    #if defined(FM_HAS_PAUSE)
        return omp_pause_resource_all(omp_pause_hard) == 0;
    #else
        return 0;
    #endif
    }
    static inline double fm_seconds(void) { /* from a fixed point; never decreases */
    #ifdef _WIN32
        LARGE_INTEGER now, per_second;
        QueryPerformanceCounter(&now);
        QueryPerformanceFrequency(&per_second);
        return (double)now.QuadPart / (double)per_second.QuadPart;
    #else
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    #endif
    }
    #if defined(__clang__)
    #define FM_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FM_COMPILER "gcc " __VERSION__
    #else
    #define FM_COMPILER "unknown"
    #endif
    """
    const int FM_HAS_OPENMP
    const char *FM_COMPILER
    int omp_get_max_threads() nogil
    int omp_get_num_threads() nogil
    int fm_stop_threads() nogil
    double fm_seconds() nogil
