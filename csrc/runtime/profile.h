/* profile.h: time of a training step by section and layer. With FASTMLP_PROFILE=1 the marks read a clock; otherwise
 * they compile to nothing.
 */
#ifndef FM_PROFILE_H
#define FM_PROFILE_H

#define FM_SECTIONS(ROW) ROW(gather) ROW(forward) ROW(loss) ROW(backward) ROW(update) ROW(bookkeeping) ROW(barrier)
enum fm_section {
#define ROW(name) FM_SECTION_##name,
    FM_SECTIONS(ROW)
#undef ROW
        FM_N_SECTIONS
};
static inline const char *fm_section_name(int section) {
    static const char *const names[FM_N_SECTIONS] = {
#define ROW(name) #name,
        FM_SECTIONS(ROW)
#undef ROW
    };
    return names[section];
}

/* One thread's seconds[section * layers + layer], and the time of its last mark. */
typedef struct fm_profile {
    double *seconds, last;
    char padding[48];
} fm_profile;

#ifdef FM_PROFILE
#define FM_HAS_PROFILE 1
#define fm_profile_begin(p) ((p)->last = fm_seconds())
/* Add the time since the last mark to `section` of `layer`. */
#define fm_profile_mark(p, layers, section, layer)                                                                     \
    do {                                                                                                               \
        const double now_ = fm_seconds();                                                                              \
        (p)->seconds[(section) * (layers) + (layer)] += now_ - (p)->last;                                              \
        (p)->last = now_;                                                                                              \
    } while (0)
#else
#define FM_HAS_PROFILE 0
#define fm_profile_begin(p) ((void)(p))
#define fm_profile_mark(p, layers, section, layer) ((void)(p), (void)(layers), (void)(section), (void)(layer))
#endif
#endif
