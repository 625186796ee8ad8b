"""Limits of what a user downloads and waits for: python -m benchmarks.limits

The package's files, compressed as in a wheel, and the import of ``fastmlp.network`` in a new process beside NumPy's, in
turn. Ends with status 1 beyond a limit. The build must be a release build, without a debugger's symbols.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import fastmlp
from benchmarks.start import import_milliseconds, in_turns

# A wheel has 1.8 MB. A service that predicts imports fastmlp.network in 1.3 times NumPy's own time, on a busy machine
# in 1.5 times; with scipy.sparse alone it would be 2.8 times (November 2026).
MOST_BYTES = 2_000_000
MOST_IMPORT = 2.5
TURNS = 15


def wheel_bytes(folder: Path) -> int:
    """Compressed size of the files that a wheel has."""
    left_out = {".pyx", ".c", ".html", ".pyc"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in left_out]
    return sum(len(zlib.compress(path.read_bytes(), 6)) for path in files)


def main() -> int:
    """Print the figures; 1 if one of them is beyond its limit."""
    size = wheel_bytes(Path(fastmlp.__file__).parent)
    times = in_turns(
        {name: lambda name=name: import_milliseconds(name) for name in ("numpy", "fastmlp.network")}, TURNS
    )
    ratio = times["fastmlp.network"] / times["numpy"]
    print(f"wheel: {size / 1e6:.2f} MB, at most {MOST_BYTES / 1e6:.2f}")
    print(f"import of fastmlp.network / of numpy: {ratio:.2f}, at most {MOST_IMPORT}")
    return int(size > MOST_BYTES or ratio > MOST_IMPORT)


if __name__ == "__main__":
    sys.exit(main())
