"""Dispatch: instruction sets and the names in their tables, threads, the measured peak."""

import os

cimport cython
from cython.parallel cimport parallel, threadid

from fastmlp.core._arrays cimport Buffer
from fastmlp.core._csrc cimport *

__all__ = [
    "ACTIVATIONS", "HYPERPARAMETERS", "LOSSES", "NORM_EPSILON", "OPTIMIZERS", "OUTPUTS", "Caller", "info",
    "max_threads", "peak_gflops", "usable_threads",
]


# ---- Dispatch and names ----------------------------------------------------------------------------------------------

cdef dict isa_rows = {fm_isa_name(i).decode(): i for i in range(fm_isa_count())}
cdef list available_isas = [name for name, i in isa_rows.items() if fm_isa_available(i)]


def _choose_isa() -> str:
    wanted = os.environ.get("FASTMLP_ISA")
    if not wanted:
        return available_isas[0]
    if wanted not in available_isas:
        raise ImportError(
            f"FASTMLP_ISA={wanted!r} is not an instruction set of this build and CPU; valid here: "
            f"{', '.join(available_isas)}"
        )
    return wanted


cdef str chosen_isa = _choose_isa()


cdef const fm_kernels *kernels_of(str isa, str dtype) except NULL:
    if isa not in available_isas:
        raise ValueError(f"isa must be one of {available_isas}, got {isa!r}")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return fm_isa_kernels(isa_rows[isa], 8 if dtype == "float64" else 4)


cdef const fm_kernels *_names = kernels_of(chosen_isa, "float64")

ACTIVATIONS = tuple([_names.activations[i].name.decode() for i in range(FM_N_ACTIVATIONS)])
OUTPUTS = tuple([_names.outputs[i].name.decode() for i in range(FM_N_OUTPUTS)])
LOSSES = {_names.losses[i].name.decode(): OUTPUTS[_names.losses[i].output] for i in range(FM_N_LOSSES)}
NORM_EPSILON = FM_NORM_EPSILON
OPTIMIZERS = {_names.optimizers[i].name.decode(): _names.optimizers[i].n_state for i in range(FM_N_OPTIMIZERS)}

cdef const fm_hyperparameter_row *_constants = fm_hyperparameters()

HYPERPARAMETERS = {_constants[i].name.decode(): _constants[i].standard for i in range(FM_N_HYPERPARAMETERS)}


cdef int set_hyperparameters(fm_hyper *hyper, dict given) except -1:
    """Set the constants of the update rules: those given by name, and the others to HYPERPARAMETERS. TypeError for
    another name."""
    cdef int i
    unknown = sorted(given.keys() - HYPERPARAMETERS.keys())
    if unknown:
        raise TypeError(f"unexpected keyword arguments: {', '.join(unknown)}")
    for i, (name, standard) in enumerate(HYPERPARAMETERS.items()):
        (<double *> (<char *> hyper + _constants[i].offset))[0] = given.get(name, standard)
    return 0


# ---- Threads ---------------------------------------------------------------------------------------------------------

cdef extern from "runtime/fork.h" nogil:
    int fm_single_threaded
    void fm_region_begins()
    void fm_region_ends()
    void fm_caller_begins()
    void fm_caller_ends()
    int fm_thread_share(int threads)
    int fm_startable(int threads)
    const int FM_MOST_THREADS
    int fm_register_fork_handlers()


if fm_register_fork_handlers() != 0:
    raise MemoryError("fastmlp could not register its handlers of forks")


cpdef int usable_threads(int wanted) noexcept nogil:
    """As many of the wanted threads as OpenMP and the other callers (see Caller) allow, at least one."""
    if fm_single_threaded:
        return 1
    return max(1, min(wanted, fm_thread_share(min(omp_get_max_threads(), FM_MOST_THREADS))))


cdef int region_begins(int n_threads) noexcept nogil:
    """Call this before a parallel region, and region_ends after it.

    It returns how many of the `n_threads` threads the region can have: with more, OpenMP might end the process.
    """
    fm_region_begins()
    return fm_startable(n_threads)


cdef void region_ends() noexcept nogil:
    fm_region_ends()


@cython.final
cdef class Caller:
    """Counts a call among those that share the threads, for as long as this object lives."""

    def __cinit__(self):
        fm_caller_begins()

    def __dealloc__(self):
        fm_caller_ends()


def max_threads() -> int:
    """Threads that OpenMP would start now, at most 1,024. OMP_NUM_THREADS, affinity and threadpoolctl set the number.

    It is 1 without OpenMP, and in a process that was forked while OpenMP could not stop its parent's threads
    (csrc/runtime/fork.h).
    """
    return 1 if fm_single_threaded else min(omp_get_max_threads(), FM_MOST_THREADS)


def info() -> dict:
    """The build and the machine: compiler, instruction sets (built, available, chosen), threads, element types."""
    return {
        "compiler": FM_COMPILER.decode(),
        "openmp": bool(FM_HAS_OPENMP),
        "built": list(isa_rows),
        "available": list(available_isas),
        "isa": chosen_isa,
        "dtypes": ["float32", "float64"],
        "max_threads": max_threads(),
    }


def peak_gflops(double seconds=0.2, str dtype="float32", int n_threads=1) -> float:
    """Fused multiply-add throughput of `n_threads` threads at once, in GFLOP/s, measured for about `seconds`."""
    cdef const fm_kernels *k = kernels_of(chosen_isa, dtype)
    cdef double start, elapsed
    cdef Py_ssize_t rounds = 100000
    n_threads = usable_threads(n_threads)
    cdef Buffer sink = Buffer(64 * n_threads)
    while True:
        n_threads = region_begins(n_threads)
        start = fm_seconds()
        with nogil, parallel(num_threads=n_threads):
            k.peak(rounds, <char *> sink.at + 64 * threadid())
        elapsed = fm_seconds() - start
        region_ends()
        if elapsed >= seconds:
            return k.peak(1, sink.at) * n_threads * rounds / elapsed * 1e-9
        rounds = <Py_ssize_t> (rounds * 1.2 * seconds / max(elapsed, 1e-4)) + 1
