"""The functions of predict.pxd, for Cython modules that cimport them. Python has Network.load and Network.predictor."""

cdef extern from "fastmlp_predict.h" nogil:
    ctypedef struct fastmlp_network
    fastmlp_network *fastmlp_open(const char *path, size_t element_size, char *message, size_t message_size)
    void fastmlp_close(fastmlp_network *network)
    size_t fastmlp_inputs(const fastmlp_network *network)
    size_t fastmlp_outputs(const fastmlp_network *network)
    size_t fastmlp_scratch(const fastmlp_network *network)
    void fastmlp_predict_row(const fastmlp_network *network, const void *x, void *y, void *scratch)


cdef network *open(const char *path, size_t element_size, char *message, size_t message_size) noexcept nogil:
    return <network *> fastmlp_open(path, element_size, message, message_size)


cdef void close(network *opened) noexcept nogil:
    fastmlp_close(<fastmlp_network *> opened)


cdef size_t inputs(const network *opened) noexcept nogil:
    return fastmlp_inputs(<const fastmlp_network *> opened)


cdef size_t outputs(const network *opened) noexcept nogil:
    return fastmlp_outputs(<const fastmlp_network *> opened)


cdef size_t scratch(const network *opened) noexcept nogil:
    return fastmlp_scratch(<const fastmlp_network *> opened)


cdef void predict_row(const network *opened, const void *x, void *y, void *working_memory) noexcept nogil:
    fastmlp_predict_row(<const fastmlp_network *> opened, x, y, working_memory)
