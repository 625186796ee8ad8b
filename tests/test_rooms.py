"""Imports go down only: each room may import the rooms below it, and scikit-learn is seen on the upper floors only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastmlp

PACKAGE = Path(fastmlp.__file__).parent
# From the ground up. A module at the top of the package is a room of its own; the package's face, __init__.py, stands
# above all.
ROOMS = [
    "_version",
    "core",
    "network",
    "training",
    "estimators",
    "inspection",
    "tabular",
    "distributed",
    "interop",
    "check",
    "__main__",
]
WITHOUT_SKLEARN = ROOMS[: ROOMS.index("estimators")]
READS_REFERENCE = {"check"}
# The largest number of modules in a folder.
MOST_MODULES = 12


def imported(file: Path) -> set[str]:
    """Dotted names of the modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file.name}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(dotted: str) -> str:
    """The room that an import of fastmlp leads to; '' for the package's face."""
    part = [*dotted.split("."), ""][1]
    return part if part in (*ROOMS, "reference") else ""


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")

FOLDERS = sorted({PACKAGE, *(file.parent for file in FILES)})


def test_every_file_has_a_room():
    rooms = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    assert rooms == {*ROOMS, "reference"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file):
    """Only what checks imports the reference, which imports NumPy and itself; nobody below __main__ imports the
    face."""
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imports = imported(file)
    inside = {room_of(dotted) for dotted in imports if dotted.split(".")[0] == "fastmlp"}
    if room == "reference":
        assert inside <= {"reference"}
        outside = {dotted.split(".")[0] for dotted in imports} - set(sys.stdlib_module_names)
        assert outside <= {"fastmlp", "numpy"}
        return
    allowed = {*ROOMS[: ROOMS.index(room) + 1]}
    allowed |= {"reference"} if room in READS_REFERENCE else set()
    allowed |= {""} if room == "__main__" else set()
    assert inside <= allowed
    assert room not in WITHOUT_SKLEARN or not any(dotted.split(".")[0] == "sklearn" for dotted in imports)


@pytest.mark.parametrize("room", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_modules_of_a_room_import_no_circle(room):
    """Inside a room too, imports have an order, between its modules and the rooms within it."""
    parts = {path.stem: {path} for path in room.glob("*.py") if path.stem != "__init__"}
    parts |= {path.name: set(path.rglob("*.py")) for path in room.iterdir() if path.is_dir()}
    prefix = ".".join(["fastmlp", *room.relative_to(PACKAGE).parts]) + "."
    below = {}
    for name, files in parts.items():
        imports = {dotted for path in files for dotted in imported(path) if dotted.startswith(prefix)}
        below[name] = {dotted.removeprefix(prefix).split(".")[0] for dotted in imports} & set(parts) - {name}
    while free := {name for name, needs in below.items() if not needs & set(below)}:
        below = {name: needs for name, needs in below.items() if name not in free}
    assert not below


@pytest.mark.parametrize("room", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_a_room_can_be_overlooked(room):
    names = {
        path.name.split(".")[0] for path in room.iterdir() if path.suffix in (".py", ".pyx", ".pxd", ".so", ".pyd")
    }
    names |= {path.name for path in room.iterdir() if path.is_dir()}
    assert len({name for name in names if name[:2] != "__"}) <= MOST_MODULES  # Python prescribes the others


def test_network_starts_without_sklearn():
    """Importing fastmlp.network, and predicting, brings in neither scikit-learn nor SciPy."""
    code = (
        "import sys, numpy, fastmlp.network as n\n"
        "n.Network((3, 4, 2)).forward(numpy.ones((1, 3), 'float32'))\n"
        "assert not {'sklearn', 'scipy'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_optional_libraries_are_imported_when_used():
    """Importing every estimator and display, and a learning-rate range test, brings in neither Matplotlib nor
    safetensors."""
    code = (
        "import sys, fastmlp\n"
        "from fastmlp import *\n"
        "fastmlp.learning_rate_range(fastmlp.MLPClassifier(), [[0.0], [1.0], [2.0]], [0, 1, 0], n_steps=5)\n"
        "assert not {'matplotlib', 'safetensors'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_dir_lists_what_users_may_use():
    assert dir(fastmlp) == sorted(fastmlp.__all__)
