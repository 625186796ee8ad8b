"""The order of an epoch's rows: NumPy's RandomState.shuffle, draw for draw, but faster and, if asked, without the GIL.

NumPy has promised never to change what it does (its legacy generators are frozen: NEP 19). The numbers come from the
bit generator's own C interface.
"""

import os
import sys

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint32_t, uint64_t

from fastmlp.core._arrays cimport array_address

__all__ = ["shuffle"]


cdef extern from *:
    """
    #include <stdint.h>
    /* What numpy/random/bitgen.h declares, in the same order: NumPy's headers are no build requirement. */
    typedef struct {
        void *state;
        uint64_t (*next_uint64)(void *state);
        uint32_t (*next_uint32)(void *state);
        double (*next_double)(void *state);
        uint64_t (*next_raw)(void *state);
    } fm_bit_generator;
    """
    ctypedef struct fm_bit_generator:
        void *state
        uint64_t (*next_uint64)(void *state) noexcept nogil
        uint32_t (*next_uint32)(void *state) noexcept nogil


cdef extern from *:
    const uint64_t EVERY_BIT "UINT64_MAX"
    int leading_zeros "__builtin_clzll"(unsigned long long) noexcept nogil


cdef void swap_all(Py_ssize_t *order, Py_ssize_t n, fm_bit_generator *bits) noexcept nogil:
    """For i = n - 1 .. 1: swap order[i] with order[j], j uniform on [0, i] by masked rejection (Knuth's algorithm P).

    Without a branch that the processor could mispredict: a rejected number swaps order[i] with itself.
    """
    cdef uint64_t i = n - 1, j, mask, accepted
    cdef Py_ssize_t kept
    while i > <uint64_t> 0xffffffff:
        mask = EVERY_BIT >> leading_zeros(i)
        j = bits.next_uint64(bits.state) & mask
        if j <= i:
            order[i], order[j] = order[j], order[i]
            i -= 1
    while i > 0:
        mask = EVERY_BIT >> leading_zeros(i)
        j = bits.next_uint32(bits.state) & mask
        accepted = j <= i
        j = i ^ ((i ^ j) & -accepted)
        kept = order[i]
        order[i] = order[j]
        order[j] = kept
        i -= accepted


# NumPy releases the GIL while it draws an array, with the generator's lock taken: the initial weights, for example. A
# process that another thread forks at that moment inherits a lock that nobody releases, and hangs at its next draw. So
# a fork waits until nobody draws from NumPy's global generator, which every fit without a random_state uses.
cdef list held_locks = []


def _acquire_before_fork():
    mtrand = sys.modules.get("numpy.random.mtrand")
    if mtrand is not None:
        lock = mtrand._rand._bit_generator.lock
        lock.acquire()
        held_locks.append(lock)


def _release_after_fork():
    if held_locks:
        held_locks.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_acquire_before_fork, after_in_parent=_release_after_fork, after_in_child=_release_after_fork
    )


def shuffle(order, rng, bint alone=False):
    """Shuffle an intp array in place as rng.shuffle(order) would, with the same draws.

    Parameters
    ----------
    order : intp array (n,), contiguous
    rng : numpy.random.RandomState
    alone : bool, default=False
        Release the GIL meanwhile. Only where no other code draws from rng: a process that another thread forked in the
        middle of the shuffle would wait for the generator's lock for ever.
    """
    cdef Py_ssize_t n = len(order)
    cdef Py_ssize_t *at = <Py_ssize_t *> array_address(order, n, b'i', "order", True)
    cdef fm_bit_generator *bits = <fm_bit_generator *> PyCapsule_GetPointer(rng._bit_generator.capsule, "BitGenerator")
    if n < 2:
        return
    with rng._bit_generator.lock:
        if alone:
            with nogil:
                swap_all(at, n, bits)
        else:
            swap_all(at, n, bits)
