# Predictions of a network that Network.save wrote, for Cython modules: `from fastmlp cimport predict`. Nothing is to be
# linked. The functions are those of fastmlp_predict.h (fastmlp.get_include()), which says what they do.

ctypedef void network  # opaque

cdef network *open(const char *path, size_t element_size, char *message, size_t message_size) noexcept nogil
cdef void close(network *opened) noexcept nogil
cdef size_t inputs(const network *opened) noexcept nogil
cdef size_t outputs(const network *opened) noexcept nogil
cdef size_t scratch(const network *opened) noexcept nogil
cdef void predict_row(const network *opened, const void *x, void *y, void *working_memory) noexcept nogil
