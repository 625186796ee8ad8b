"""Change: a block that changes an object's attributes, one block at a time, and all or nothing.

Compiled because a Python method may be interrupted at its first instruction: with Ctrl-C just there, an object would stay
half changed, and locked for good. It refuses to know what it guards. Imported by the estimators' side of the package.
"""

import os

# The objects that are being changed now, by id, each with its block. The one thing that all threads write to: dict.setdefault
# and pop are atomic, with or without the GIL. A forked child has none of the threads that were at it.
cdef dict blocks = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=blocks.clear)


cdef class Change:
    """Context manager: the block may change the attributes of `subject`; if it raises, they are what they were.

    Arrays must not be changed in place in the block. Nothing of this is left in the object, so that it can be pickled and
    copied in the block; what other threads see of it meanwhile is neither the old nor the new.

    Parameters
    ----------
    subject : object with a __dict__

    Raises
    ------
    RuntimeError
        On entry, if such a block is being executed for `subject`, in this thread or another.
    """

    cdef object subject
    cdef dict before

    def __cinit__(self, subject):
        self.subject = subject

    def __enter__(self):
        if blocks.setdefault(id(self.subject), self) is not self:
            raise RuntimeError(
                f"This {type(self.subject).__name__} is being fitted or changed, in another thread or further up in this one. "
                "Use a clone for each fit, or one after the other."
            )
        try:
            self.before = dict(self.subject.__dict__)  # only now: another thread's block may just have ended
        except BaseException:
            blocks.pop(id(self.subject), None)
            raise
        return self.subject

    def __exit__(self, kind, error, traceback):
        if kind is not None and self.before is not None:
            self.subject.__dict__ = self.before
        blocks.pop(id(self.subject), None)


def settle(subject):
    """What the block that is being executed for `subject` has done to it stays, whatever is raised after this."""
    cdef Change block = blocks[id(subject)]
    block.before = None
