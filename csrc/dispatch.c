/* dispatch.c: the tables of this build, and whether the running CPU can use them. */
#include "cpu.h"
#include "fastmlp.h"

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
