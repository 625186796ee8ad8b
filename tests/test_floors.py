"""Imports go down only: each file may import the files below it, and scikit-learn is seen on the upper floors only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import fastmlp

COMPILED = ["_change", "_machine", "_shuffle", "_kernels", "_plan", "_workspace", "_core"]
FLOORS = [
    *COMPILED, "threads", "aligned", "container", "network_file", "initialisers", "network", "optimizers", "progress", "training", "lbfgs", "progressive",
    "values", "typed", "held_out", "saving", "conversion", "parameters", "rows", "labels", "callbacks_fallback", "callbacks", "records", "adapt",
    "representation", "doclink", "base", "estimators", "ensemble", "loading", "range_test", "display", "tuning", "check", "tables",
    "__main__",
]  # fmt: skip
READS_REFERENCE = {"check", "tables", "__main__"}
PACKAGE = Path(fastmlp.__file__).parent


def imported(file: Path) -> set[str]:
    """Dotted names of everything that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["fastmlp" * bool(node.level), node.module]))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_floors_import_downwards():
    """No file imports its own floor or one above; only what checks imports the reference."""
    files = {file.stem: imported(file) for file in PACKAGE.glob("*.py") if file.stem != "__init__"}
    for name, imports in files.items():
        inside = {part for dotted in imports if dotted.startswith("fastmlp.") for part in [dotted.split(".")[1]]}
        allowed = set(FLOORS[: FLOORS.index(name)]) if name in FLOORS else set()
        allowed |= {"reference"} if name in READS_REFERENCE else set()
        assert inside - {"show_config", "__version__"} <= allowed, name
        below_sklearn = (name in FLOORS and FLOORS.index(name) < FLOORS.index("typed"))
        assert not (below_sklearn and any(dotted.startswith("sklearn") for dotted in imports)), name


def test_reference_imports_numpy_and_itself():
    """It shares no code with what it checks."""
    for file in (PACKAGE / "reference").glob("*.py"):
        outside = {dotted for dotted in imported(file) if not dotted.startswith(("fastmlp.reference.", "__future__."))}
        assert {dotted.split(".")[0] for dotted in outside} - set(sys.stdlib_module_names) <= {"numpy"}, file.name


def test_network_starts_without_sklearn():
    """Importing fastmlp.network, and predicting, brings in neither scikit-learn nor SciPy."""
    code = (
        "import sys, numpy, fastmlp.network as n\n"
        "n.Network((3, 4, 2)).forward(numpy.ones((1, 3), 'float32'))\n"
        "assert not {'sklearn', 'scipy'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
