from fastmlp.core._csrc cimport fm_hyper, fm_kernels

cpdef int usable_threads(int wanted) noexcept nogil
cdef int region_begins(int n_threads) noexcept nogil
cdef void region_ends() noexcept nogil
cdef const fm_kernels *kernels_of(str isa, str dtype) except NULL
cdef int set_hyperparameters(fm_hyper *hyper, dict given) except -1


cdef class Caller:
    pass
