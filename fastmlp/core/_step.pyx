"""The threads' part of training: Steps takes them through the steps of an epoch and calls the C kernels.

Nothing is computed here but sums of losses: every product, activation, loss and update is a kernel of csrc/fastmlp.h.

A step has two phases, with a barrier after each:
    1. forward and backward: each thread takes some of the rows through the network
    2. gradient and update: each thread takes some blocks of weights, over all rows of the batch
Batch normalisation cuts phase 1 into segments: its statistics are computed by columns, with a barrier before and after.
Codes begin with a phase of their own at each step: the sums of the first layer's weights before each bin.
Several members share the product of the first hidden layer, and have their own rows from there on: barriers follow and
precede it, since its rows are shared out by themselves.
Clipping cuts phase 2: all gradients first, then, when their norm is known, all updates. A scaling of the input cuts it
for the first layer's weights: the gradient of a row's scale is a sum over the whole row.
A batch of more than 512 rows (128 to 512 in very large networks) is computed in micro-batches. Phase 2 carries its sums
from one to the next, which keeps both their order and the memory small. No result depends on the number of threads:
each sum belongs to one kernel, which adds in the order of the rows, and random numbers depend on their position only.
"""

from libc.math cimport INFINITY, NAN, sqrt
from libc.stdint cimport uint32_t

from fastmlp.core._arrays cimport Buffer
from fastmlp.core._csrc cimport *
from fastmlp.core._workspace cimport INPUT_SCALE, SCALE, WEIGHTS, Factors, WorkItem

__all__ = []


cdef double row_weight(const Epoch *e, Py_ssize_t r, double mix) noexcept nogil:
    """Weight of row r of the epoch's order; with mixup, its partner's weight in proportion. Of a row whose outputs have
    weights, their mean."""
    cdef const double *weights = e.targets.weights
    if e.targets.output_weights != NULL:
        return mean_output_weight(e, r, mix)
    if weights == NULL:
        return 1
    if e.partners != NULL:
        return mix * weights[r if e.order == NULL else e.order[r]] + (1 - mix) * weights[e.partners[r]]
    return weights[r if e.order == NULL else e.order[r]]


cdef double mean_output_weight(const Epoch *e, Py_ssize_t r, double mix) noexcept nogil:
    """Mean of the weights of a row's outputs; with mixup, of those mixed with its partner's."""
    cdef Py_ssize_t row = r if e.order == NULL else e.order[r], O = e.n_outputs, o
    cdef const double *own = e.targets.output_weights + row * O
    cdef const double *partner = own
    cdef double total = 0
    if e.partners != NULL:
        partner = e.targets.output_weights + e.partners[r] * O
    for o in range(O):
        total += own[o] if e.partners == NULL else fm_mixed_weight(own[o], partner[o], mix)
    return total / O


cdef double weight_sum(const Epoch *e, Py_ssize_t step) noexcept nogil:
    """Sum of the weights of a step's rows, in their order; without weights, the number of rows. So it is with
    `counts_rows`, unless all weights are 0."""
    cdef Py_ssize_t first = step * e.batch_size, last = min(first + e.batch_size, e.n_rows), r
    cdef double total = 0
    if e.targets.weights == NULL and e.targets.output_weights == NULL:
        return <double> (last - first)
    for r in range(first, last):
        total += row_weight(e, r, 1 if e.mix == NULL else e.mix[step])
    return <double> (last - first) if e.counts_rows and total != 0 else total


cdef const Py_ssize_t *list_partners(const Epoch *e, list kept) except NULL:
    """Mixup's partner of each row of the epoch's order: the next row of its batch, or the first one for the last."""
    cdef Buffer room = Buffer((e.n_rows + 1) * sizeof(Py_ssize_t), False)
    cdef Py_ssize_t *partners = <Py_ssize_t *> room.at
    cdef Py_ssize_t first, last, r, next
    kept.append(room)
    for first in range(0, e.n_rows, e.batch_size):
        last = min(first + e.batch_size, e.n_rows)
        for r in range(first, last):
            next = first if r == last - 1 else r + 1
            partners[r] = next if e.order == NULL else e.order[next]
    return partners


cdef bint same_factors(const Factors *a, const Factors *b) noexcept nogil:
    return a.rate == b.rate and a.epsilon == b.epsilon and a.decay == b.decay


cdef class Steps:
    """What a Trainer's threads do; its memory, and how far they have come."""

    cdef void run_thread(self, Epoch *e, int thread, int n_threads) noexcept nogil:
        """One thread's part of a slice."""
        cdef Progress *progress = &self.progress
        cdef fm_hyper hyper = e.hyper
        cdef Py_ssize_t begin = self.memory.first_item(thread, n_threads)
        cdef Py_ssize_t end = self.memory.first_item(thread + 1, n_threads)
        cdef Py_ssize_t step, micro_batch, n_micro_batches, rows, first, count
        cdef bint last
        cdef fm_profile *profile = &self.memory.profiles[thread]
        fm_profile_begin(profile)
        while not progress.stop:
            step, micro_batch = progress.step, progress.micro_batch
            rows = min(e.batch_size, e.n_rows - progress.first)
            n_micro_batches = self.count_micro_batches(rows)
            first = rows * micro_batch // n_micro_batches
            count = rows * (micro_batch + 1) // n_micro_batches - first
            first += progress.first
            if e.weight_sums[step] != 0:
                if e.codes != NULL and micro_batch == 0:
                    self.sum_bins(e.codes, thread, n_threads)
                if self.plan.n_members > 1:
                    self.forward_backward_members(e, first, count, thread, n_threads)
                else:
                    self.forward_backward(e, first, count, thread, n_threads)
                fm_barrier_wait(&self.barrier, n_threads)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
                hyper.learning_rate, hyper.t = e.learning_rates[step], e.t + step + 1
                if e.decay_factors != NULL:
                    hyper.weight_decay = e.hyper.weight_decay * e.decay_factors[step]
                hyper.weight_sum = self.plan.n_members * e.weight_sums[step]
                hyper.penalty_scale = rows / hyper.weight_sum
                # In proportion to its rows: the last batch of an epoch may have one row, of variance 0. Measured with
                # 401 rows in batches of 200: the full momentum for the last one takes R^2 from 0.98 to 0.30.
                hyper.norm_momentum = self.norm_momentum * (rows / <double> e.batch_size)
                last = micro_batch == n_micro_batches - 1 and not e.only_sums
                if self.memory.squares == NULL:
                    self.gradient_update(e, &hyper, begin, end, first, count, micro_batch > 0, e.rule if last else -1,
                                         thread)
                    if last and self.memory.unscaled != NULL:
                        fm_barrier_wait(&self.barrier, n_threads)
                        self.scaling_gradients(thread, n_threads)
                        self.update_scaled(e, &hyper, thread, n_threads)
                else:
                    self.gradient_update(e, &hyper, begin, end, first, count, micro_batch > 0, -1, thread)
                    if last:
                        if self.memory.unscaled != NULL:
                            fm_barrier_wait(&self.barrier, n_threads)
                            self.scaling_gradients(thread, n_threads)
                            fm_barrier_wait(&self.barrier, n_threads)
                        hyper.clip = 1
                        self.gradient_norms(&hyper, begin, end)
                        fm_barrier_wait(&self.barrier, n_threads)
                        hyper.clip = self.clip_factor()
                        self.gradient_update(e, &hyper, begin, end, first, 0, 1, e.rule, thread)
                        if self.memory.unscaled != NULL:
                            self.update_scaled(e, &hyper, thread, n_threads)
            else:
                fm_barrier_wait(&self.barrier, n_threads)
            if thread == 0:
                self.end_micro_batch(e, rows, first, count, n_micro_batches)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_bookkeeping, 0)
            fm_barrier_wait(&self.barrier, n_threads)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef Py_ssize_t count_micro_batches(self, Py_ssize_t rows) noexcept nogil:
        return (rows + self.memory.micro_batch_rows - 1) // self.memory.micro_batch_rows

    # ---- Phase 1 -----------------------------------------------------------------------------------------------------

    cdef void sum_bins(self, const fm_codes *X, int thread, int n_threads) noexcept nogil:
        """This thread's share, by panel and number, of the sums of the first layer's weights before each bin."""
        cdef fm_layer *layer = &self.layers[0]
        cdef Py_ssize_t panel = self.k.panel, bytes = panel * self.k.element_size, numbers = X.n_numbers, p, f0, f1
        cdef Py_ssize_t total = self.plan.padded(self.plan.columns(0)) // panel * numbers
        cdef Py_ssize_t begin = total * thread // n_threads, end = total * (thread + 1) // n_threads
        cdef fm_profile *profile = &self.memory.profiles[thread]
        while begin < end:
            p, f0 = begin // numbers, begin % numbers
            f1 = min(numbers, f0 + end - begin)
            self.k.sum_bins(self.memory.bin_sums + p * X.offset[numbers] * bytes,
                            <char *> layer.W + p * layer.fan_in * bytes, X, panel, f0, f1)
            begin += f1 - f0
        fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, 0)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef void forward_backward(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                               int n_threads) noexcept nogil:
        """This thread's rows of the micro-batch through all segments and back; its columns of the normalisations
        between."""
        cdef int s
        for s in range(self.memory.n_segments):
            self.forward_segment(e, s, first, count, thread, n_threads)
            if s < self.memory.n_segments - 1:
                self.batch_norm_barrier(self.memory.segment_ends[s], count, thread, n_threads, False)
        for s in range(self.memory.n_segments - 2, -1, -1):
            self.batch_norm_barrier(self.memory.segment_ends[s], count, thread, n_threads, True)
            self.backward_segment(s, count * thread // n_threads, count * (thread + 1) // n_threads, thread)

    cdef void forward_segment(self, Epoch *e, int s, Py_ssize_t first, Py_ssize_t count, int thread,
                              int n_threads) noexcept nogil:
        """This thread's rows forward through segment s, in chunks; in the last segment also back, while they are in the
        cache."""
        cdef Py_ssize_t row = count * thread // n_threads, end = count * (thread + 1) // n_threads
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, n, stride = self.memory.stride
        cdef Py_ssize_t O = self.plan.sizes[self.n_layers]
        cdef const Py_ssize_t *order
        cdef const Py_ssize_t *partner
        cdef fm_layer *layer
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef int l, bottom = self.memory.segment_ends[s - 1] + 1 if s > 0 else 0
        if s == 0 and e.codes != NULL:
            self.forward_codes(e, first + row, row, end - row, thread)
            bottom = 1
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            order, partner = NULL, NULL
            if e.order != NULL:
                order = e.order + first + row
            if e.partners != NULL:
                partner = e.partners + first + row
            if bottom == 0 and not e.use_sparse:
                self.gather_inputs(e, order, partner, first + row, row, n)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_gather, 0)
            for l in range(bottom, self.memory.segment_ends[s] + 1):
                layer = &self.layers[l]
                if l == 0 and e.use_sparse:
                    self.k.forward_csr(layer, e.X, order, first + row, row, n, stride)
                else:
                    self.k.forward(layer, 0, layer.fan_out, row, n, stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            if s == self.memory.n_segments - 1:
                layer = &self.layers[self.n_layers - 1]
                self.k.loss_gradient(self.loss_row, layer.dz, self.memory.row_losses + row, self.thread_scratch(thread),
                                     &e.targets, order, partner, first + row, row, n, O, stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_loss, 0)
                self.backward_segment(s, row, row + n, thread)
            row += n

    cdef void forward_codes(self, Epoch *e, Py_ssize_t first_row, Py_ssize_t row, Py_ssize_t n,
                            int thread) noexcept nogil:
        """The first layer, for coded rows: all of this thread's at once, for each chunk would read weights and sums
        again."""
        cdef const Py_ssize_t *order = NULL
        if e.order != NULL:
            order = e.order + first_row
        self.k.forward_codes(&self.layers[0], self.memory.bin_sums, e.codes, order, first_row, row, n,
                             self.memory.stride_of(0))
        fm_profile_mark(&self.memory.profiles[thread], self.n_layers, FM_SECTION_forward, 0)

    cdef void gather_inputs(self, Epoch *e, const Py_ssize_t *order, const Py_ssize_t *partner, Py_ssize_t first_row,
                            Py_ssize_t row, Py_ssize_t n) noexcept nogil:
        """Rows of the input into panels, mixed, with noise, masked and dropped as the run wants."""
        cdef Py_ssize_t skip = row * self.k.panel * self.k.element_size, stride = self.memory.stride
        cdef char *x = <char *> self.layers[0].x + skip
        cdef char *mixed = NULL
        self.k.gather(x, e.X, order, first_row, n, stride)
        if partner != NULL:
            mixed = self.memory.partners + skip
            self.k.gather(mixed, e.X, partner, 0, n, stride)
        if e.changes_input:
            self.k.augment(x, mixed, e.targets.mix, &e.input, &self.memory.rng, row, n, self.plan.sizes[0], stride)

    cdef void backward_segment(self, int s, Py_ssize_t row, Py_ssize_t end, int thread) noexcept nogil:
        """Gradients of rows back through segment s, down to the first layer that learns."""
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, n
        cdef int l, bottom = max(self.memory.first_learning, self.memory.segment_ends[s - 1] if s > 0 else 0)
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            for l in range(self.memory.segment_ends[s], bottom, -1):
                self.k.backward(&self.layers[l], &self.layers[l - 1], self.thread_scratch(thread), 0,
                                self.layers[l].fan_in, row, n, self.memory.stride)
                fm_profile_mark(&self.memory.profiles[thread], self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void forward_backward_members(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                                       int n_threads) noexcept nogil:
        """This thread's part of a micro-batch through the network and back: rows of the input in the embedding and the
        layer that multiplies it, rows of all members, m count + r, in the layers behind it."""
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef fm_layer *shared = &self.layers[1]
        cdef Py_ssize_t row = count * thread // n_threads, n = count * (thread + 1) // n_threads - row
        cdef fm_members members = self.memory.members
        members.rows = count
        self.forward_codes(e, first + row, row, n, thread)
        self.k.forward_members(shared, &members, self.thread_scratch(thread), row, n, self.memory.stride)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, 1)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
        self.member_rows(e, first, count, thread, n_threads)
        if self.memory.first_learning <= 1:
            fm_barrier_wait(&self.barrier, n_threads)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
            self.k.sum_members(shared, &members, self.memory.member_sums, self.memory.sums_stride, row, n,
                               self.memory.stride)
            if self.memory.first_learning == 0:
                self.k.backward_members(shared, &self.layers[0], &members, self.memory.member_sums,
                                        self.memory.sums_stride, self.thread_scratch(thread), row, n)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, 1)

    cdef void member_rows(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                          int n_threads) noexcept nogil:
        """This thread's part of all members' rows, from the output of the layer behind the embedding to its delta."""
        cdef Py_ssize_t total = count * self.plan.n_members, row = total * thread // n_threads
        cdef Py_ssize_t end = total * (thread + 1) // n_threads, n
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef int l, last = self.n_layers - 1
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            for l in range(2, last):
                self.k.forward(&self.layers[l], 0, self.layers[l].fan_out, row, n, self.memory.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            self.member_outputs(e, first, count, row, row + n, thread)
            for l in range(last - 1, max(self.memory.first_learning, 1), -1):
                self.k.backward(&self.layers[l], &self.layers[l - 1], self.thread_scratch(thread), 0,
                                self.layers[l].fan_in, row, n, self.memory.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void member_outputs(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, Py_ssize_t row, Py_ssize_t end,
                             int thread) noexcept nogil:
        """Each member's output layer, loss and gradient for its rows among row .. end."""
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef Py_ssize_t n, first_row
        cdef const Py_ssize_t *order
        cdef fm_layer *layer
        cdef int l = self.n_layers - 1
        while row < end:
            n = min(end, (row // count + 1) * count) - row
            layer, first_row, order = &self.layers[l + row // count], first + row % count, NULL
            if e.order != NULL:
                order = e.order + first_row
            self.k.forward(layer, 0, layer.fan_out, row, n, self.memory.stride)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            self.k.loss_gradient(self.loss_row, layer.dz, self.memory.row_losses + row, self.thread_scratch(thread),
                                 &e.targets, order, NULL, first_row, row, n, layer.fan_out, self.memory.stride)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_loss, 0)
            if l > self.memory.first_learning:
                self.k.backward(layer, &self.layers[l - 1], self.thread_scratch(thread), 0, layer.fan_in, row, n,
                                self.memory.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void batch_norm_barrier(self, int l, Py_ssize_t count, int thread, int n_threads,
                                 bint backward) noexcept nogil:
        """This thread's columns of layer l's normalisation, or of its gradient, between two barriers."""
        cdef Py_ssize_t panels = self.plan.padded(self.layers[l].fan_out) // self.k.panel, p
        cdef fm_profile *profile = &self.memory.profiles[thread]
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
        for p in range(panels * thread // n_threads, panels * (thread + 1) // n_threads):
            if backward:
                self.k.batch_norm_backward(&self.layers[l], p, count, self.memory.stride)
            else:
                self.k.batch_norm_forward(&self.layers[l], p, count, self.memory.stride)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_backward if backward else FM_SECTION_forward, l)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef char *thread_scratch(self, int thread) noexcept nogil:
        return self.memory.scratch + thread * self.memory.scratch_bytes

    # ---- Phase 2 -----------------------------------------------------------------------------------------------------

    cdef void gradient_update(self, Epoch *e, const fm_hyper *common, Py_ssize_t begin, Py_ssize_t end,
                              Py_ssize_t first, Py_ssize_t rows, int accumulate, int rule, int thread) noexcept nogil:
        """This thread's items: gradient, and update unless rule < 0. With rows = 0 the gradients are there already."""
        cdef Py_ssize_t i, size = self.k.element_size, block = FM_BLOCK_ROWS * self.k.panel * size, batch
        cdef Py_ssize_t stride
        cdef int l = -1
        cdef bint scales = self.memory.unscaled != NULL  # of the weights below it, only the gradient is made here
        cdef fm_layer member
        cdef fm_members members = self.memory.members
        cdef fm_hyper hyper = common[0]
        cdef const Factors *factors
        cdef const Factors *last = NULL
        cdef bint sorts = (e.use_sparse or e.codes != NULL) and rows > 0, has_gradient
        cdef bint fetches = rule >= 0 and common.t == e.fetch_t
        cdef WorkItem *item
        cdef fm_layer *layer
        cdef void *G = self.thread_scratch(thread)
        cdef fm_profile *profile = &self.memory.profiles[thread]
        if sorts:
            self.sort_columns(e, begin, end, first, rows, thread)
        for i in range(begin, end):
            item = &self.memory.items[i]
            layer, batch, stride = &self.layers[item.layer], rows, self.memory.stride_of(item.layer)
            if self.plan.n_members > 1 and item.layer > 0:
                batch = self.memory.learning_rows(item.layer, rows)
                if item.layer >= self.n_layers:
                    layer = self.member_of(item.layer, rows, &member)
                elif item.layer == 1 and not item.n:
                    batch = rows * self.plan.n_members
            if item.kind == INPUT_SCALE or (scales and item.layer == 0 and item.kind == WEIGHTS and rows == 0):
                continue
            if item.layer != l:
                if l >= 0:
                    fm_profile_mark(profile, self.n_layers, FM_SECTION_update, self.plan.layer_of(l))
                l = item.layer
            factors = &self.memory.factors[2 * item.layer + (item.kind != WEIGHTS)]
            if last == NULL or not same_factors(factors, last):
                self.prepare(e, &hyper, common, factors)
                last = factors
            if self.memory.gradients != NULL:
                G = self.memory.gradients + i * block
            if fetches:
                self.memory.fetch_state(item)
            if item.n:
                has_gradient = True
                if l == 0 and sorts and e.codes != NULL:
                    self.k.gradient_codes(layer, G, &self.memory.columns[thread], e.codes, item.i0, item.n, item.p,
                                          stride, accumulate)
                elif l == 0 and sorts:
                    self.k.gradient_csr(G, &self.memory.columns[thread], <char *> layer.dz + item.p * stride * size,
                                        item.i0, item.n, accumulate)
                elif l == 1 and members.n > 1 and rows > 0:
                    members.rows = rows
                    self.k.gradient_members(layer, &members, G, self.memory.member_sums, self.memory.sums_stride,
                                            item.i0, item.n, item.p, accumulate)
                else:
                    has_gradient = False
                self.k.update(layer, G, self.memory.penalties + i * self.k.panel, item.i0, item.n, item.p,
                              0 if has_gradient else batch, stride, 1 if has_gradient else accumulate,
                              -1 if scales and l == 0 else rule, &hyper)
            elif item.kind == SCALE:
                if rule >= 0 and hyper.norm_momentum != 0:
                    self.k.update_running_statistics(layer, item.p, &hyper)
                self.k.update_scale(layer, G, item.p, rule, &hyper)
            else:
                self.k.update_bias(layer, G, item.p, batch, stride, accumulate, rule, &hyper)
        if l >= 0:
            fm_profile_mark(profile, self.n_layers, FM_SECTION_update, self.plan.layer_of(l))

    cdef void prepare(self, const Epoch *e, fm_hyper *hyper, const fm_hyper *common,
                      const Factors *factors) noexcept nogil:
        """A tensor's hyperparameters."""
        hyper.learning_rate = common.learning_rate * factors.rate
        hyper.epsilon = common.epsilon * factors.epsilon
        hyper.weight_decay = common.weight_decay * factors.decay
        self.k.optimizers[e.rule].prepare(hyper)

    cdef void scaling_gradients(self, int thread, int n_threads) noexcept nogil:
        """From the gradient of the first layer's weights diag(s) W to those of s and W, this thread's rows."""
        cdef Py_ssize_t size = self.k.element_size, fan_in = self.layers[0].fan_in, block, i0
        cdef Py_ssize_t n_blocks = (fan_in + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS
        cdef fm_layer layer = self.memory.unscaled_layer()
        for block in range(n_blocks * thread // n_threads, n_blocks * (thread + 1) // n_threads):
            i0 = block * FM_BLOCK_ROWS
            self.k.scaling_gradient(&layer, self.scaled_block(block), <char *> self.memory.scaling_gradient + i0 * size,
                                    <char *> self.memory.scaling.W + i0 * size, i0, min(FM_BLOCK_ROWS, fan_in - i0))

    cdef char *scaled_block(self, Py_ssize_t block) noexcept nogil:
        """The gradients of a block of rows of the first layer's weights: those of its panels follow each other."""
        cdef Py_ssize_t panels = self.plan.padded(self.layers[0].fan_out) // self.k.panel
        return self.memory.gradients + block * panels * FM_BLOCK_ROWS * self.k.panel * self.k.element_size

    cdef void update_scaled(self, Epoch *e, const fm_hyper *common, int thread, int n_threads) noexcept nogil:
        """The first layer's weights W and their scaling s, from their gradients, and diag(s) W, this thread's rows."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel, fan_in = self.layers[0].fan_in
        cdef Py_ssize_t n_blocks = (fan_in + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS, block, i0, n, p, i
        cdef Py_ssize_t panels = self.plan.padded(self.layers[0].fan_out) // panel, stride = self.memory.stride
        cdef fm_layer layer = self.memory.unscaled_layer()
        cdef fm_layer *scaling = &self.memory.scaling
        cdef fm_hyper hyper = common[0], own = common[0]
        cdef double *penalty = self.memory.penalties  # to which the scaling adds nothing
        own.l1 = own.l2 = 0
        self.prepare(e, &hyper, common, &self.memory.factors[0])
        self.prepare(e, &own, common, &self.memory.scaling_factors)
        for block in range(n_blocks * thread // n_threads, n_blocks * (thread + 1) // n_threads):
            i0 = block * FM_BLOCK_ROWS
            n = min(FM_BLOCK_ROWS, fan_in - i0)
            for p in range(panels):
                i = block * panels + p
                self.k.update(&layer, self.memory.gradients + i * FM_BLOCK_ROWS * panel * size,
                              self.memory.penalties + i * panel, i0, n, p, 0, stride, 1, e.rule, &hyper)
            for p in range(i0 // panel, (i0 + n + panel - 1) // panel):
                self.k.update(scaling, <char *> self.memory.scaling_gradient + p * panel * size, penalty, 0, 1, p, 0,
                              stride, 1, e.rule, &own)
            self.k.scale_rows(&layer, self.layers[0].W, <char *> scaling.W + i0 * size, i0, n)
        fm_profile_mark(&self.memory.profiles[thread], self.n_layers, FM_SECTION_update, 0)

    cdef fm_layer *member_of(self, int matrix, Py_ssize_t count, fm_layer *member) noexcept nogil:
        """A further member's output layer, where its rows begin in a micro-batch of `count` rows of the input."""
        cdef Py_ssize_t first = (matrix - self.n_layers + 1) * count * self.k.panel * self.k.element_size
        member[0] = self.layers[matrix]
        member.x, member.dz = <char *> member.x + first, <char *> member.dz + first
        return member

    cdef void gradient_norms(self, const fm_hyper *hyper, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
        """Sums of squares of this thread's gradients, by column."""
        cdef Py_ssize_t i, block = FM_BLOCK_ROWS * self.k.panel * self.k.element_size
        cdef fm_layer first = self.layers[0]
        cdef const fm_layer *layer
        cdef char *G
        cdef WorkItem *item
        if self.memory.unscaled != NULL:
            first = self.memory.unscaled_layer()
        for i in range(begin, end):
            item = &self.memory.items[i]
            layer, G = &self.layers[item.layer], self.memory.gradients + i * block
            if item.layer == 0:
                layer = &first
            if item.kind == INPUT_SCALE:
                G = <char *> self.memory.scaling_gradient + item.p * self.k.panel * self.k.element_size
            self.k.sum_squared_gradient(layer, G, self.memory.squares + i * self.k.panel, item.i0, item.n, item.p,
                                        hyper)

    cdef double clip_factor(self) noexcept nogil:
        """min(1, max_grad_norm / norm); NaN for a norm that is NaN or infinite, which then shows in the parameters:
        with 0 instead, training would stand still silently."""
        cdef double norm = sqrt(self.memory.sum_in_order(self.memory.squares))
        return 1 if norm <= self.max_grad_norm else self.max_grad_norm / norm if norm < INFINITY else NAN

    cdef void sort_columns(self, Epoch *e, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first, Py_ssize_t rows,
                           int thread) noexcept nogil:
        """The micro-batch's stored elements in the columns of this thread's items of the first layer, by column."""
        cdef Py_ssize_t last = begin
        cdef const WorkItem *items = self.memory.items
        cdef const Py_ssize_t *order = NULL
        if e.order != NULL:
            order = e.order + first
        while last < end and items[last].layer == 0 and items[last].n:
            last += 1
        if last > begin and e.codes != NULL:
            self.k.codes_to_csc(&self.memory.columns[thread], e.codes, order, first, rows, items[begin].i0,
                                items[last - 1].i0 + items[last - 1].n)
        elif last > begin:
            self.k.csr_to_csc(&self.memory.columns[thread], e.X, order, first, rows, items[begin].i0,
                              items[last - 1].i0 + items[last - 1].n)

    # ---- Bookkeeping -------------------------------------------------------------------------------------------------

    cdef void begin_micro_batch(self, Epoch *e) noexcept nogil:
        """Thread 0, before the threads go on: where random numbers are drawn, and the step's share of mixup."""
        cdef Progress *progress = &self.progress
        cdef Py_ssize_t rows = min(e.batch_size, e.n_rows - progress.first), n_micro_batches, first
        self.memory.rng.step = <uint32_t> (e.t + progress.step + 1)
        if rows > 0:
            n_micro_batches = self.count_micro_batches(rows)
            first = rows * progress.micro_batch // n_micro_batches
            self.memory.rng.row = self.first_row + first
            self.memory.rng.rows = rows * (progress.micro_batch + 1) // n_micro_batches - first
            self.memory.rng.batch = rows
        if e.mix != NULL and progress.step < e.n_steps:
            e.targets.mix = e.mix[progress.step]
        if e.dropout_factors != NULL and progress.step < e.n_steps:
            self.set_dropout(e, e.dropout_factors[progress.step])

    cdef void set_dropout(self, Epoch *e, double factor) noexcept nogil:
        """The step's rates of dropout."""
        cdef int l
        e.input.dropout = factor * self.input_rate
        for l in range(self.n_layers - 1):
            self.layers[l].dropout_rate = factor * self.memory.dropout[l + 1]

    cdef void end_micro_batch(self, Epoch *e, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t count,
                              Py_ssize_t n_micro_batches) noexcept nogil:
        """Thread 0, while the others finish phase 2: sum the losses in the order of the rows, move on."""
        cdef Progress *progress = &self.progress
        cdef double weight
        cdef Py_ssize_t r
        if e.weight_sums[progress.step] != 0:
            for r in range(count * self.plan.n_members):
                weight = 1  # a row whose outputs have weights comes weighted
                if e.targets.output_weights == NULL:
                    weight = row_weight(e, first + r % count, e.targets.mix)
                if weight != 0:
                    progress.step_loss += weight * self.memory.row_losses[r]
        progress.rows += count
        progress.micro_batch += 1
        if progress.micro_batch == n_micro_batches:
            if e.weight_sums[progress.step] != 0:
                progress.step_loss /= self.plan.n_members * e.weight_sums[progress.step]
                progress.loss += progress.step_loss * rows
            if e.step_losses != NULL:
                e.step_losses[progress.step] = progress.step_loss
            progress.step_loss = 0
            progress.micro_batch = 0
            progress.step += 1
            progress.first += rows
        self.begin_micro_batch(e)
        if progress.step == e.n_steps or fm_seconds() >= e.slice_end:
            progress.stop = 1
