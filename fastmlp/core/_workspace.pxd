# What _trainer.pyx takes from _workspace.

from fastmlp.core._csrc cimport fm_csc, fm_rng, fm_kernels, fm_layer, fm_profile
from fastmlp.core._arrays cimport Rows
from fastmlp.core._plan cimport Plan

cdef enum Kind:
    WEIGHTS, BIAS, SCALE

cdef struct Unit:
    # A piece of what runs across the batch: rows i0 .. i0 + n of weight panel p, or, with n = 0, panel p of a vector.
    int layer
    Kind kind
    Py_ssize_t i0, n, p
    Py_ssize_t cost        # of all units before this one, and half of its own


cdef class Workspace:
    cdef Plan plan
    cdef readonly str loss
    cdef readonly str optimizer
    cdef readonly Py_ssize_t batch_size
    cdef readonly int n_threads
    cdef double norm_momentum      # what a whole batch counts in the running averages of batch normalisation
    cdef double max_grad_norm      # 0: no clipping
    cdef double input_rate         # of dropout on the input
    cdef int loss_row, rule, n_state, n_layers
    cdef int lowest                # the first layer that learns: nothing goes back below it
    cdef int n_segments            # pieces of the network that rows pass without a word from other rows
    cdef const fm_kernels *k
    cdef fm_layer *layers
    cdef double *rates             # of each layer: what its learning rate is multiplied by
    cdef int *ends                 # of each segment: its last layer
    cdef Unit *units
    cdef Py_ssize_t n_units, stride, total_cost, scratch_bytes, slab_rows
    cdef bint apart                # all gradients first, then all updates: they are clipped, or may take long
    cdef char *sums                # of each unit, its gradient; NULL where a thread's scratch is enough
    cdef double *squares           # of each unit's columns, where gradients are clipped
    cdef double *penalties         # of each unit's columns, over the epoch
    cdef double *values            # losses of a slab's rows
    cdef char *scratch             # of each thread
    cdef char *partners            # rows that are mixed into those of the input
    cdef fm_profile *profiles      # of each thread
    cdef fm_csc *columns       # of each thread: a slab's stored elements in the thread's part of the first layer
    cdef fm_rng rng
    cdef list buffers
    cdef bint finished             # the memory of weights and state is gone
    cdef int release(self, void *memory) except -1
    cdef int refuse_finished(self) except -1
    cdef int refuse_absurd(self) except -1
    cdef void *buffer(self, Py_ssize_t n_bytes) except NULL
    cdef int allocate_layers(self, dropout) except -1
    cdef int allocate_norm(self, fm_layer *layer, Py_ssize_t n_bytes, bint learns) except -1
    cdef int allocate_profiles(self) except -1
    cdef int list_segments(self) except -1
    cdef int list_units(self) except -1
    cdef Py_ssize_t cost_of_row(self, Py_ssize_t columns) noexcept
    cdef int add_units(self, int l, Unit *unit) except -1
    cdef int make_room_for_input(self, bint mixes) except -1
    cdef int make_room_for_columns(self, Rows rows, Py_ssize_t m, list memory) except -1
    cdef Py_ssize_t first_unit(self, int thread, int n_threads) noexcept nogil
    cdef double in_order(self, const double *numbers) noexcept nogil
