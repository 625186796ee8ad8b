/* cpu.h: what the running CPU and its operating system can do. Never compiled with an instruction set's flags.
 * Each test is named in isa.def.
 */
#ifndef FM_CPU_H
#define FM_CPU_H

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
#endif
