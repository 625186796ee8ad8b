# One epoch as _trainer.pyx works on it: where it stands, what all threads read, and what its rows count.

from fastmlp.core._csrc cimport fm_augment, fm_hyper, fm_rows, fm_targets


cdef struct Position:
    # How far an epoch has come. Written by thread 0 only, between barriers.
    Py_ssize_t step, slab, first   # first: row of the epoch's order at which the step begins
    Py_ssize_t rows                # that went through both phases in this slice
    double step_loss, loss         # sums over rows: of this step; of the epoch, each step's mean times its rows
    int stop                       # leave the parallel region: time to look for signals, or the end


cdef struct Epoch:
    # What one call of Trainer.epoch works on; read by all threads.
    const fm_rows *X
    bint use_sparse, changes_input
    fm_augment input
    fm_targets *targets
    const Py_ssize_t *order
    const Py_ssize_t *partners     # of each row of the order: the row that is mixed into it; NULL without mixup
    Py_ssize_t n_rows, batch_size, n_steps, t
    const double *learning_rates
    const double *mix              # of each step
    const double *weight_sums
    double *step_losses            # NULL if nobody asks
    fm_hyper hyper
    double slice_end
    int rule


cdef inline double row_weight(const Epoch *e, Py_ssize_t r, double mix) noexcept nogil:
    """What row r of the epoch's order counts: its weight, with mixup that of its partner in proportion."""
    cdef const double *weights = e.targets.weights
    if weights == NULL:
        return 1
    if e.partners != NULL:
        return mix * weights[r if e.order == NULL else e.order[r]] + (1 - mix) * weights[e.partners[r]]
    return weights[r if e.order == NULL else e.order[r]]


cdef inline double weight_sum(const Epoch *e, Py_ssize_t step) noexcept nogil:
    """Sum of what a step's rows count, in their order; without weights, their number."""
    cdef Py_ssize_t first = step * e.batch_size, last = min(first + e.batch_size, e.n_rows), r
    cdef double total = 0
    if e.targets.weights == NULL:
        return <double> (last - first)
    for r in range(first, last):
        total += row_weight(e, r, 1 if e.mix == NULL else e.mix[step])
    return total
