from fastmlp.core._csrc cimport *
from fastmlp.core._plan cimport Plan
from fastmlp.core._workspace cimport Factors, Workspace


cdef struct Progress:
    # How far an epoch has come. Thread 0 alone writes it, between barriers.
    Py_ssize_t step, micro_batch
    Py_ssize_t first               # position in the epoch's order of the step's first row
    Py_ssize_t rows                # rows finished in this slice
    double step_loss               # sum over the step's rows
    double loss                    # sum over steps of the mean loss times the rows
    int stop                       # the slice or the epoch ends here


cdef struct Epoch:
    # Arguments of one call of Trainer.epoch, read by all threads.
    const fm_rows *X
    const fm_codes *codes          # X, if it holds codes; else NULL
    bint use_sparse, changes_input
    bint only_sums                 # the step ends with its gradient's sums: see Trainer.sums
    bint counts_rows               # losses are divided by the number of rows, not by the sum of weights
    fm_augment input
    fm_targets targets
    const Py_ssize_t *order
    const Py_ssize_t *partners     # row that is mixed into each row of the order; NULL without mixup
    Py_ssize_t n_rows, n_outputs, batch_size, n_steps, t
    const double *learning_rates   # of each step
    const double *mix              # of each step
    const double *dropout_factors  # of each step; NULL: 1
    const double *decay_factors    # of each step; NULL: 1
    const double *weight_sums      # of each step
    Py_ssize_t fetch_t             # number of the update that reads an earlier run's state; 0: none does
    double *step_losses            # NULL: not wanted
    fm_hyper hyper
    double slice_end
    int rule


cdef double weight_sum(const Epoch *e, Py_ssize_t step) noexcept nogil
cdef const Py_ssize_t *list_partners(const Epoch *e, list kept) except NULL


cdef class Steps:
    cdef Plan plan
    cdef Workspace memory
    cdef const fm_kernels *k
    cdef fm_layer *layers          # of the workspace
    cdef int n_layers, loss_row
    cdef double norm_momentum, max_grad_norm, input_rate
    cdef fm_barrier barrier
    cdef Progress progress
    cdef Py_ssize_t first_row      # of its shard, in the batch
    cdef void run_thread(self, Epoch *e, int thread, int n_threads) noexcept nogil
    cdef Py_ssize_t count_micro_batches(self, Py_ssize_t rows) noexcept nogil
    cdef void sum_bins(self, const fm_codes *X, int thread, int n_threads) noexcept nogil
    cdef void forward_backward(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                               int n_threads) noexcept nogil
    cdef void forward_segment(self, Epoch *e, int s, Py_ssize_t first, Py_ssize_t count, int thread,
                              int n_threads) noexcept nogil
    cdef void forward_codes(self, Epoch *e, Py_ssize_t first_row, Py_ssize_t row, Py_ssize_t n,
                            int thread) noexcept nogil
    cdef void gather_inputs(self, Epoch *e, const Py_ssize_t *order, const Py_ssize_t *partner, Py_ssize_t first_row,
                            Py_ssize_t row, Py_ssize_t n) noexcept nogil
    cdef void backward_segment(self, int s, Py_ssize_t row, Py_ssize_t end, int thread) noexcept nogil
    cdef void forward_backward_members(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                                       int n_threads) noexcept nogil
    cdef void member_rows(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread, int n_threads) noexcept nogil
    cdef void member_outputs(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, Py_ssize_t row, Py_ssize_t end,
                             int thread) noexcept nogil
    cdef void batch_norm_barrier(self, int l, Py_ssize_t count, int thread, int n_threads, bint backward) noexcept nogil
    cdef char *thread_scratch(self, int thread) noexcept nogil
    cdef void gradient_update(self, Epoch *e, const fm_hyper *common, Py_ssize_t begin, Py_ssize_t end,
                              Py_ssize_t first, Py_ssize_t rows, int accumulate, int rule, int thread) noexcept nogil
    cdef void prepare(self, const Epoch *e, fm_hyper *hyper, const fm_hyper *common,
                      const Factors *factors) noexcept nogil
    cdef void scaling_gradients(self, int thread, int n_threads) noexcept nogil
    cdef char *scaled_block(self, Py_ssize_t block) noexcept nogil
    cdef void update_scaled(self, Epoch *e, const fm_hyper *common, int thread, int n_threads) noexcept nogil
    cdef fm_layer *member_of(self, int matrix, Py_ssize_t count, fm_layer *member) noexcept nogil
    cdef void gradient_norms(self, const fm_hyper *hyper, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
    cdef double clip_factor(self) noexcept nogil
    cdef void sort_columns(self, Epoch *e, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first, Py_ssize_t rows,
                           int thread) noexcept nogil
    cdef void begin_micro_batch(self, Epoch *e) noexcept nogil
    cdef void set_dropout(self, Epoch *e, double factor) noexcept nogil
    cdef void end_micro_batch(self, Epoch *e, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t count,
                              Py_ssize_t n_micro_batches) noexcept nogil
