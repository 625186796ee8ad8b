"""AtomicUpdate: a block that changes an object's attributes, one block at a time, and all or nothing.

Compiled because a Python method may be interrupted at its first instruction: after Ctrl-C there, an object would stay
half changed, and locked for ever.
"""

import os
from _thread import get_ident

# The objects that are being updated, by id, each with its block. All threads write to it: dict.setdefault and pop are
# atomic, with or without the GIL.
cdef dict blocks = {}


def _keep_own_blocks() -> None:
    """In a forked child: its only thread goes on with the blocks that it is in; nobody ends those of other threads."""
    for key, block in list(blocks.items()):
        if (<AtomicUpdate> block).thread != get_ident():
            del blocks[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_own_blocks)


cdef class AtomicUpdate:
    """Context manager: the block may change the attributes of `subject`; if it raises, they are restored.

    Do not change arrays in place in the block. Lists may be appended to: if the block raises, they are cut to their old
    length. Nothing is stored in the object, so that the block may pickle and copy it. Other threads may see some
    attributes changed and others not yet.

    Parameters
    ----------
    subject : object with a __dict__

    Raises
    ------
    RuntimeError
        On entry, if such a block is running for `subject`, in this thread or another.
    """

    cdef object subject
    cdef object thread
    cdef dict before
    cdef list lists                # lists among the attributes, each with its length

    def __cinit__(self, subject):
        self.subject = subject
        self.thread = get_ident()

    def __enter__(self):
        if blocks.setdefault(id(self.subject), self) is not self:
            raise RuntimeError(
                f"This {type(self.subject).__name__} is being fitted or changed, in another thread or further up in "
                "this one. Use a clone for each fit, or one after the other."
            )
        try:
            before = dict(self.subject.__dict__)  # not earlier: another thread's block may just have ended
            self.lists = [(value, len(value)) for value in before.values() if type(value) is list]
            self.before = before
        except BaseException:
            blocks.pop(id(self.subject), None)
            raise
        return self.subject

    def __exit__(self, kind, error, traceback):
        if kind is not None and self.before is not None:
            self.subject.__dict__ = self.before
            for value, length in self.lists:
                del value[length:]
        blocks.pop(id(self.subject), None)


def commit(subject):
    """Keep what the running block has done to `subject`, even if something raises later in the block."""
    cdef AtomicUpdate block = blocks[id(subject)]
    block.before = None
