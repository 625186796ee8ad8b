/* profile.h: where the time of a step goes, per section and layer. Built with FASTMLP_PROFILE=1 the marks read a clock;
 * else they are nothing, and cost nothing. Included by _trainer.pyx only; each thread has its own fm_profile.
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

/* seconds[section * layers + layer], the thread's own; last: when its last mark was set */
typedef struct fm_profile {
    double *seconds, last;
    char apart[48];
} fm_profile;

#ifdef FM_PROFILE
#define FM_HAS_PROFILE 1
#define fm_profile_begin(p) ((p)->last = fm_seconds())
/* What happened since the last mark was `section` of `layer`. */
#define fm_profile_mark(p, layers, section, layer)                                                                     \
    do {                                                                                                               \
        const double now_ = fm_seconds();                                                                              \
        (p)->seconds[(section) * (layers) + (layer)] += now_ - (p)->last;                                              \
        (p)->last = now_;                                                                                              \
    } while (0)
#else
#define FM_HAS_PROFILE 0
#define fm_profile_begin(p) ((void)(p))
#define fm_profile_mark(p, layers, section, layer) ((void)(p))
#endif
#endif
