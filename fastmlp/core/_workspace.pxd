from fastmlp.core._arrays cimport InputRows, Reserve
from fastmlp.core._csrc cimport FM_MAX_STATE, fm_csc, fm_kernels, fm_layer, fm_members, fm_profile, fm_rng
from fastmlp.core._plan cimport Plan


cdef enum ItemKind:
    WEIGHTS, BIAS, SCALE, INPUT_SCALE


cdef struct Factors:
    # A tensor's own factors of a step's hyperparameters.
    double rate, epsilon, decay


cdef struct WorkItem:
    # A piece of phase 2: rows i0 .. i0 + n of weight panel p or, with n = 0, panel p of a vector.
    int layer
    ItemKind kind
    Py_ssize_t i0, n, p
    Py_ssize_t cost                # of all items before this one, and half of its own


cdef class OptimizerPanels:
    cdef Plan plan
    cdef readonly Reserve reserve
    cdef int n_state
    cdef Py_ssize_t n_bytes        # of each array
    cdef list buffers              # of each array; empty: all zero
    cdef char *array(self, int s) except NULL
    cdef int allocate(self, fm_layer *layers) except -1
    cdef Py_ssize_t place(self, fm_layer *layers, int s) except -1
    cdef int clear(self) except -1
    cdef object flat(self)
    cdef bint fits(self, OptimizerPanels other) noexcept


cdef class Workspace:
    cdef Plan plan
    cdef const fm_kernels *k
    cdef fm_layer *layers
    cdef fm_rng rng
    cdef int n_layers, n_matrices, n_state, n_threads
    cdef double *rates             # of each matrix: factor of its learning rate
    cdef double *dropout           # rate of each layer's input
    cdef Factors *factors          # of each matrix's weights, and of its other parameters; rates are in them
    cdef Factors scaling_factors   # of the scaling of the input
    cdef void *unscaled            # W of a first layer whose weights are diag(s) W; NULL without a scaling of the input
    cdef fm_layer scaling          # s as the weights of a layer with one input
    cdef void *scaling_gradient    # of s
    cdef char *scalings            # of each member and feature; NULL with one member
    cdef fm_members members        # their patterns; rows is that of a micro-batch
    cdef char *patterns            # room for these
    cdef char *member_sums         # of each pattern: the members' dz behind the embedding, added up
    cdef Py_ssize_t sums_stride, most_patterns  # of that array
    cdef int first_learning        # gradients are not propagated below this layer
    cdef int n_segments
    cdef int *segment_ends         # last layer of each segment
    cdef WorkItem *items
    cdef Py_ssize_t n_items, total_cost
    cdef Py_ssize_t input_cost     # of the first layer's weights
    cdef double input_share        # of that cost which remains with the epoch's kind of input
    cdef Py_ssize_t micro_batch_rows  # of the input: each member has as many
    cdef Py_ssize_t stride, scratch_bytes
    cdef char *gradients           # of each item; NULL where each thread's scratch is enough
    cdef double *squares           # of each item's columns: sums of squared gradients, where these are clipped
    cdef double *penalties         # of each item's columns, over the epoch
    cdef double *row_losses        # of a micro-batch
    cdef char *scratch             # of each thread
    cdef char *partners            # input rows that mixup mixes into those of the first layer
    cdef fm_profile *profiles      # of each thread
    cdef fm_csc *columns           # of each thread: a micro-batch's stored elements in the columns of its items
    cdef char *bin_sums            # of coded rows: sums of the first layer's weights before each bin, in panels
    cdef list buffers
    cdef Reserve reserve
    cdef OptimizerPanels state
    cdef OptimizerPanels source    # an earlier run's state, which the first update of each weight reads; None: none
    cdef Py_ssize_t[FM_MAX_STATE] distance  # in bytes, from a number of the state to the source's
    cdef bint blank                # the state is zero
    cdef bint finished             # the state belongs to somebody else, and the weights' memory is freed
    cdef Py_ssize_t stride_of(self, int l) noexcept nogil
    cdef Py_ssize_t learning_rows(self, int matrix, Py_ssize_t count) noexcept nogil
    cdef int check_size(self) except -1
    cdef void *allocate(self, Py_ssize_t n_bytes, bint zeroed=*) except NULL
    cdef int free(self, void *memory) except -1
    cdef int allocate_layers(self) except -1
    cdef int allocate_scaling(self) except -1
    cdef fm_layer unscaled_layer(self) noexcept nogil
    cdef int allocate_outputs(self, const fm_layer *first) except -1
    cdef int allocate_norm(self, fm_layer *layer, Py_ssize_t n_bytes, bint learns) except -1
    cdef int allocate_profiles(self) except -1
    cdef int list_segments(self) except -1
    cdef int list_items(self) except -1
    cdef Py_ssize_t row_cost(self, Py_ssize_t columns) noexcept
    cdef int add_items(self, int l, WorkItem *items) except -1
    cdef int make_room_for_input(self, bint mixes) except -1
    cdef int make_room_for_columns(self, InputRows rows, Py_ssize_t m, list kept) except -1
    cdef int make_room_for_codes(self, InputRows rows, Py_ssize_t m, list kept) except -1
    cdef int load(self, parameters, state, statistics) except -1
    cdef int load_members(self, const char *scalings) except -1
    cdef bint store(self, parameters, state, statistics) except -1
    cdef void reset_scaling(self) noexcept
    cdef int load_state(self, state) except -1
    cdef int follow(self, OptimizerPanels source) except -1
    cdef void fetch_state(self, const WorkItem *item) noexcept nogil
    cdef int settle_state(self) except -1
    cdef OptimizerPanels finish(self)
    cdef int make_room_for_gradients(self) except -1
    cdef void copy_gradients(self, char *flat, bint into) noexcept nogil
    cdef Py_ssize_t first_item(self, int thread, int n_threads) noexcept nogil
    cdef Py_ssize_t item_columns(self, Py_ssize_t i) noexcept nogil
    cdef Py_ssize_t count_columns(self) noexcept nogil
    cdef int copy_penalties(self, array, bint into) except -1
    cdef double sum_in_order(self, const double *numbers) noexcept nogil
