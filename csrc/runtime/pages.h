/* pages.h: large memory in huge pages. A call that uses some megabytes of fresh memory, as a prediction does, else
 * spends much of its time in page faults. NumPy does the same for its arrays.
 */
#ifndef FM_PAGES_H
#define FM_PAGES_H

#include <stddef.h>
#include <stdint.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define FM_HUGE_FROM ((size_t)4 << 20) /* bytes */

/* Ask for huge pages in at .. at + n_bytes, which holds nothing yet. The system may decline. */
static inline void fm_use_huge_pages(void *at, size_t n_bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t first = ((uintptr_t)at + 4095) & ~(uintptr_t)4095;
    if (n_bytes >= FM_HUGE_FROM)
        madvise((void *)first, (n_bytes - (first - (uintptr_t)at)) & ~(size_t)4095, MADV_HUGEPAGE);
#else
    (void)at, (void)n_bytes;
#endif
}
#endif
