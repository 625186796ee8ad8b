/* dispatch.c: the tables of this build, and whether the running CPU and its operating system can use them. Never
 * compiled with an instruction set's flags. Each test is named in isa.def.
 */
#include "fastmlp.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Which register files the operating system saves: bits of XCR0. */
static unsigned fm_xcr0(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int fm_cpu_has_avx2(void) {
    unsigned a, b, c, d;
    if ((fm_xcr0() & 0x6) != 0x6 || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static int fm_cpu_has_avx512(void) {
    const unsigned wanted = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    unsigned a, b, c, d;
    if ((fm_xcr0() & 0xe6) != 0xe6 || !fm_cpu_has_avx2())
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted;
}
#endif

typedef struct {
    const char *name;
    int (*available)(void);
    const fm_kernels *float32, *float64;
} isa_row;

#define ISA(name, architecture, test, ...) FM_ISA_##architecture(name, test)
#if defined(__x86_64__)
#define FM_ISA_x86_64(name, test) FM_USE(name, test)
#else
#define FM_ISA_x86_64(name, test)
#endif
#define FM_ISA_any(name, test) FM_USE(name, test)

#define FM_USE(name, test)                                                                                             \
    extern const fm_kernels fm_kernels_##name##_32, fm_kernels_##name##_64;                                            \
    static int available_##name(void) { return test; }
#include "isa.def"
#undef FM_USE

static const isa_row rows[] = {
#define FM_USE(name, test) {#name, available_##name, &fm_kernels_##name##_32, &fm_kernels_##name##_64},
#include "isa.def"
#undef FM_USE
};

static const fm_hyperparameter_row hyperparameters[] = {
#define HYPERPARAMETER(name, standard) {#name, offsetof(fm_hyper, name), standard},
#include "hyperparameters.def"
#undef HYPERPARAMETER
};

int fm_isa_count(void) { return (int)(sizeof(rows) / sizeof(rows[0])); }
const char *fm_isa_name(int i) { return rows[i].name; }
int fm_isa_available(int i) { return rows[i].available(); }
const fm_kernels *fm_isa_kernels(int i, int element_size) {
    return element_size == 8 ? rows[i].float64 : rows[i].float32;
}
const fm_hyperparameter_row *fm_hyperparameters(void) { return hyperparameters; }
