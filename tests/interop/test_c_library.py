"""fastmlp_predict.h: small programs, built against the installed package, give the bits of Network.forward and refuse
bad files."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
import sysconfig
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers import ENVIRONMENT, SANITIZED, rest_slow

import fastmlp
from fastmlp import FileFormatError, Network, core

PROGRAM = Path(__file__).parent / "programs" / "predict.c"
CSRC = Path(__file__).parent.parent.parent / "csrc"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
LIBRARY = [f"-L{fastmlp.get_library_dir()}", "-lfastmlp_predict", "-lm"]

pytestmark = [
    pytest.mark.skipif(SANITIZED, reason="the static library wants the sanitizer that it was built with"),
    pytest.mark.skipif(sys.platform != "linux", reason="compilers are called as on Linux"),
]


def run(command: list, **arguments) -> subprocess.CompletedProcess:
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=300, **arguments)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[:3000]
    return done


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")


def built(folder: Path, compiler: str = "gcc", standard: str = "c99", *flags: str) -> Path:
    needs(compiler)
    source = folder / ("predict.cc" if "+" in compiler else "predict.c")
    shutil.copy(PROGRAM, source)
    program = folder / "predict"
    options = [f"-std={standard}", "-O1", *WARNINGS, f"-I{fastmlp.get_include()}", *flags]
    run([compiler, *options, source, "-o", program, *LIBRARY])
    return program


def outputs(program: Path, path: Path, X: np.ndarray, n_outputs: int) -> np.ndarray:
    done = run([program, X.itemsize, len(X), path], input=np.ascontiguousarray(X).tobytes())
    assert len(done.stdout) == len(X) * n_outputs * X.itemsize, done.stdout[:500]
    return np.frombuffer(done.stdout, X.dtype).reshape(len(X), n_outputs)


def made(number: int, name: str, output: str, dtype: str) -> Network:
    """A network that may have any trait, with numbers in all its arrays."""
    sizes = [(3, 2), (7, 11, 11, 3), (5, 33, 33, 33, 21), (4, 1)][number % 4]
    network = Network(
        sizes, name, output, dtype, random_state=number, batch_norm=number % 3 == 1, residual=number % 2 == 1,
        bias_init=("normal", 0.5),
    )  # fmt: skip
    network.statistics[:] = np.random.default_rng(number).uniform(0.5, 2, network.statistics.shape)
    return network


def check_bits(folder: Path, program: Path, networks: list[Network]) -> None:
    for number, network in enumerate(networks):
        path = folder / f"{number}.safetensors"
        network.save(path)
        X = np.random.default_rng(0).standard_normal((4, network.layer_sizes[0])).astype(network.dtype)
        X[1] *= 100
        found = outputs(program, path, X, network.layer_sizes[-1])
        np.testing.assert_array_equal(found, network.forward(X), str(network))


@pytest.mark.parametrize(
    ("compiler", "standard"),
    rest_slow([("gcc", "c99"), ("g++", "c++17"), ("clang", "c11"), ("clang++", "c++11")], ("gcc", "c99")),
)
def test_bits_of_forward(tmp_path: Path, compiler: str, standard: str):
    """Each activation, output and element type once."""
    program, n = built(tmp_path, compiler, standard), len(core.ACTIVATIONS)
    names = [
        made(i, name, [*core.OUTPUTS, *core.ACTIVATIONS][i], dtype)
        for dtype, (i, name) in product(("float32", "float64"), enumerate(core.ACTIVATIONS))
    ]
    check_bits(
        tmp_path, program, [*names, *(made(i + n, "tanh", output, "float32") for i, output in enumerate(core.OUTPUTS))]
    )


@pytest.mark.slow
def test_bits_of_the_grid(tmp_path: Path):
    grid = product(core.ACTIVATIONS, dict.fromkeys([*core.OUTPUTS, "tanh"]), ("float32", "float64"))
    check_bits(tmp_path, built(tmp_path), [made(number, *parts) for number, parts in enumerate(grid)])


@pytest.mark.parametrize("isa", core.info()["available"])
def test_instruction_set_is_chosen_as_in_python(tmp_path: Path, isa: str):
    network, x = made(5, "gelu", "softmax", "float32"), np.linspace(-2, 2, 7, dtype=np.float32)
    network.save(tmp_path / "n")
    code = (
        "import sys, numpy; from fastmlp.network import Network\n"
        "x = numpy.frombuffer(sys.stdin.buffer.read(), 'f4').reshape(1, -1)\n"
        "sys.stdout.buffer.write(Network.load(sys.argv[1]).forward(x).tobytes())"
    )
    environment = {**ENVIRONMENT, "FASTMLP_ISA": isa}
    expected = run([sys.executable, "-P", "-c", code, tmp_path / "n"], input=x.tobytes(), env=environment).stdout
    program = built(tmp_path)
    assert run([program, 4, 1, tmp_path / "n"], input=x.tobytes(), env=environment).stdout == expected
    environment["FASTMLP_ISA"] = "none"
    assert b"FASTMLP_ISA" in run([program, 4, 1, tmp_path / "n"], env=environment).stdout


# --- files -------------------------------------------------------------------------------------------------------


def parts_of(data: bytes) -> tuple[str, bytes]:
    """The header and the arrays of a file."""
    length = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + length].decode(), data[8 + length :]


def joined(header: str | bytes, arrays: bytes) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + arrays


def changes() -> dict[str, bytes]:
    """Files that are not good, by what the message says."""
    network = Network((3, 4, 4, 2), "tanh", dtype="float32", batch_norm=True, random_state=0)
    path = Path("network.safetensors")
    network.save(path)
    data = path.read_bytes()
    header, arrays = parts_of(data)

    def changed(old: str, new: str) -> bytes:
        assert old in header
        return joined(header.replace(old, new, 1), arrays)

    nan = arrays[:-4] + struct.pack("<f", np.nan)
    return {
        "it is empty": b"",
        "not a safetensors file": b"PK\3\4" + bytes(100),
        "not a safetensors": data[:7],
        "do not fill the file": data[:-1],
        "arrays do not fill": data + b"\0",
        "not written by fastmlp": joined(header.replace("fastmlp_format", "f").replace("fastmlp_version", "v"), arrays),
        "its metadata must be fastmlp_format, fastmlp_version and model": changed("fastmlp_version", "fastmlp_virsion"),
        "it has format '2'": changed('"fastmlp_format":"1"', '"fastmlp_format":"2"'),
        "its class is 'MLPClassifier'": changed(r"\"Network\"", r"\"MLPClassifier\""),
        "unknown activation 'tanb'": changed("tanh", "tanb"),
        "unknown out_activation 'sofmax'": changed("softmax", "sofmax"),
        "type double, the program asks for float": changed("float32", "float64"),
        "unknown field": changed("residual", "residuum"),
        "unknown field, or one twice": changed("batch_norm", "residual"),
        "another shape than layer_sizes": changed("[3,4,4,2]", "[3,4,4,3]"),
        "layer_sizes must be": changed("[3,4,4,2]", "[3,0,4,2]"),
        "one for each hidden layer": changed("[3,4,4,2]", "[3,4,2]"),
        "the model's description is not valid": changed("[3,4,4,2]", "[3,4,4,2.0]"),
        "the header is not valid": changed('"shape"', '"shape",'),
        "tensor 'coefs.1' is missing": changed("coefs.1", "coefs.7"),
        "tensor 'coefs.0' is of another type": changed('"F32","shape":[3,4]', '"I32","shape":[3,4]'),
        "arrays that do not belong": changed(r"\"batch_norm\":true", r"\"batch_norm\":false"),
        "do not lie one after the other": changed('"F32","shape":[3,4]', '"F32","shape":[3,5]'),
        "longer than the file": changed('"F32","shape":[3,4]', '"F32","shape":[3,4611686018427387904]'),
        "finite numbers only": joined(header, nan),
        "no negative numbers": joined(header, arrays[:-4] + struct.pack("<f", -1.0)),
        "coded rows": changed(r"\"residual\":false", r"\"residual\":false,\"embedding\":16,\"n_members\":1"),
    }  # fmt: skip


def test_bad_files_have_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    program, files = built(tmp_path), changes()
    for number, (message, data) in enumerate(files.items()):
        (tmp_path / str(number)).write_bytes(data)
        printed = run([program, 4, 0, number]).stdout.decode()
        assert message in printed, printed
        assert printed.startswith(f"{number} cannot be loaded: ")
        assert printed.endswith(".\n")
        if message not in ("type double, the program asks for float", "coded rows"):
            with pytest.raises(FileFormatError):
                Network.load(str(number))
    assert "no such file" in run([program, 4, 0, "nothing"]).stdout.decode()
    assert "not a regular file" in run([program, 4, 0, tmp_path]).stdout.decode()
    assert "element_size" in run([program, 2, 0, "network.safetensors"]).stdout.decode()
    assert run([program, 4, 0, "network.safetensors"]).stdout == b"good\n"
    printed = run([program, 4, 0, "x" * 2000]).stdout
    assert len(printed) < 512
    for frozen in (Path(__file__).parent.parent / "data").glob("*.safetensors"):
        kind = frozen.name.split("-")[0]
        found = run([program, 8, 0, frozen]).stdout.decode()
        assert found == "good\n" if kind == "network" else "its class is" in found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A file with flipped bits, a part missing, twice or replaced."""
    length = struct.unpack("<Q", data[:8])[0]
    header, arrays, kind = bytearray(data[8 : 8 + length]), data[8 + length :], rng.randrange(6)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind < 3:  # in the whole file, or in its header
        flipped = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            flipped[rng.randrange(len(data) if kind == 1 else 8 + length)] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    first = rng.randrange(length)
    last = min(length, first + rng.randrange(1, 12))
    if kind == 3:
        del header[first:last]
    elif kind == 4:
        header[first:first] = header[rng.randrange(length) :][: last - first]
    else:
        words = [
            "0",
            "01",
            "-1",
            "1e1",
            "true",
            "null",
            '"',
            "\\u004e",
            "\\ud800",
            "[",
            "]",
            "{",
            "}",
            ",",
            " ",
            "F64",
            "relu",
            "9" * 30,
            "\0",
        ]
        header[first : first + 1] = rng.choice(words).encode()
    return joined(bytes(header), arrays)


def check_mutations(folder: Path, program: Path, n_files: int) -> None:
    """C and Python take the same files, and no other."""
    rng, originals = random.Random(n_files), []
    for batch_norm, dtype in product((False, True), ("float32", "float64")):
        Network((3, 4, 4, 2), "tanh", dtype=dtype, batch_norm=batch_norm, random_state=0).save(folder / "original")
        originals.append(((folder / "original").read_bytes(), dtype))
    paths: dict[str, list[Path]] = {"float32": [], "float64": []}
    for number in range(n_files):
        data, dtype = rng.choice(originals)
        paths[dtype].append(folder / f"{number}.safetensors")
        paths[dtype][-1].write_bytes(mutated(data, rng))
    n_good = 0
    for dtype, own in paths.items():
        lines = run([program, np.dtype(dtype).itemsize, 0, *own]).stdout.decode(errors="replace").splitlines()
        for path, line in zip(own, lines, strict=True):
            try:
                is_good = Network.load(path).dtype == dtype
            except FileFormatError:
                is_good = False
            assert (line == "good") == is_good, (path.read_bytes(), line)
            n_good += is_good
    assert 0 < n_good < n_files / 2


def test_mutated_files(tmp_path: Path):
    check_mutations(tmp_path, built(tmp_path), 300)


@pytest.mark.slow
def test_mutated_files_under_sanitizers(tmp_path: Path):
    """The reader's sources with the address sanitizer; the kernels are the library's."""
    needs("gcc")
    if not CSRC.is_dir():
        pytest.skip("the sources of csrc are not here")
    flags = [
        "-std=c11",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    sources = [*(CSRC / "predict").glob("*.c"), PROGRAM]
    include = [f"-I{CSRC}", f"-I{CSRC / 'predict'}"]
    run(["gcc", *flags, *include, *sources, "-o", tmp_path / "predict", *LIBRARY])
    check_mutations(tmp_path, tmp_path / "predict", 3000)


# --- build systems -------------------------------------------------------------------------------------------------


def check_program(folder: Path, program: Path) -> None:
    check_bits(folder, program, [made(1, "silu", "softmax", "float32")])


def test_pkg_config(tmp_path: Path):
    needs("pkg-config", "gcc")
    environment = {**ENVIRONMENT, "PKG_CONFIG_PATH": str(Path(fastmlp.get_library_dir()) / "pkgconfig")}
    flags = run(["pkg-config", "--cflags", "--libs", "fastmlp"], env=environment).stdout.decode().split()
    assert (
        run(["pkg-config", "--modversion", "fastmlp"], env=environment).stdout.decode().strip() == fastmlp.__version__
    )
    run(["gcc", PROGRAM, "-o", tmp_path / "predict", *flags])
    check_program(tmp_path, tmp_path / "predict")


def test_entry_point_of_pkg_config():
    """Build systems find the folder of fastmlp.pc by the name of a package."""
    found = [entry for entry in entry_points(group="pkg_config") if entry.name == "fastmlp"]
    assert found
    folders = [Path(folder) for folder in found[0].load().__path__]
    assert any((folder / "fastmlp.pc").is_file() for folder in folders)


@pytest.mark.slow
def test_cmake(tmp_path: Path):
    needs("cmake", "gcc")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(service C)\nfind_package(fastmlp 0.1 REQUIRED CONFIG)\n"
        f"add_executable(predict {PROGRAM})\ntarget_link_libraries(predict PRIVATE fastmlp::predict)\n"
    )
    where = f"-Dfastmlp_DIR={fastmlp.get_library_dir()}/cmake/fastmlp"
    run(["cmake", "-S", tmp_path, "-B", tmp_path / "build", where])
    run(["cmake", "--build", tmp_path / "build"])
    check_program(tmp_path, tmp_path / "build" / "predict")


CYTHON = """
# cython: language_level=3
from libc.stdlib cimport free, malloc
from fastmlp cimport predict

def outputs(path, float[:, ::1] X):
    cdef char message[512]
    cdef predict.network *network = predict.open(path.encode(), sizeof(float), message, sizeof(message))
    if network == NULL:
        raise ValueError(message.decode())
    cdef void *scratch = malloc(predict.scratch(network))
    cdef size_t O = predict.outputs(network)
    cdef float *y = <float *> malloc(O * sizeof(float))
    cdef Py_ssize_t row
    found = []
    assert predict.inputs(network) == X.shape[1]
    for row in range(X.shape[0]):
        with nogil:
            predict.predict_row(network, &X[row, 0], y, scratch)
        found.append([y[i] for i in range(O)])
    free(y)
    free(scratch)
    predict.close(network)
    return found
"""


@pytest.mark.slow
def test_cython(tmp_path: Path):
    """A module that cimports fastmlp.predict needs no header and links nothing."""
    pytest.importorskip("Cython")
    needs("gcc")
    (tmp_path / "service.pyx").write_text(CYTHON)
    run([sys.executable, "-P", "-m", "cython", "-3", "service.pyx"], cwd=tmp_path, env=ENVIRONMENT)
    module = f"service{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_paths()["include"]
    run(["gcc", "-shared", "-fPIC", "-O1", f"-I{include}", "service.c", "-o", module], cwd=tmp_path)
    network = made(1, "silu", "softmax", "float32")
    network.save(tmp_path / "n")
    X = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    X.tofile(tmp_path / "X")
    code = (
        "import sys, numpy, service; X = numpy.fromfile('X', 'f4').reshape(-1, 7)\n"
        "sys.stdout.buffer.write(numpy.array(service.outputs('n', X), 'f4').tobytes())\n"
        "try: service.outputs('X', X)\n"
        "except ValueError as error: assert 'X cannot be loaded' in str(error)\n"
        "else: raise AssertionError"
    )
    path = f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"
    done = run([sys.executable, "-c", code], cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": path})
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "f4").reshape(4, -1), network.forward(X))
