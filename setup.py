"""Builds fastmlp's extension modules: csrc/kernels/kernels.c once per row of csrc/isa.def and element type, then
Cython; and the static library of csrc/predict, with its header and the files of pkg-config and CMake, in
fastmlp/interop/c.

Environment: FASTMLP_OPENMP=0 builds without threads; FASTMLP_DEBUG=1 builds with bounds checks, -O1 and -g;
FASTMLP_SANITIZE=address (undefined, thread) adds a sanitizer; FASTMLP_PROFILE=1 builds Trainer.profile (make profile);
FASTMLP_COVERAGE=1 has Cython report the lines that it executes with the lock held (make coverage).
LIBOMP_PREFIX=/folder names an OpenMP runtime that Apple's clang does not find by itself (include/omp.h, lib/libomp).
Everything that does not depend on the machine is in pyproject.toml. docs/developers/building.md says which systems were
tried.
"""

import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, LinkError, PlatformError

CSRC = Path("csrc")
DEBUG = os.environ.get("FASTMLP_DEBUG") == "1"
SANITIZE = os.environ.get("FASTMLP_SANITIZE", "")
PROFILE = os.environ.get("FASTMLP_PROFILE") == "1"
COVERAGE = os.environ.get("FASTMLP_COVERAGE") == "1"
WINDOWS, MACOS = sys.platform == "win32", sys.platform == "darwin"
if MACOS:
    # One architecture at a time: a Python for both would compile each file for both, and isa.def's flags are for one.
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")


def target_machine() -> str:
    """The architecture that is compiled for, by GCC's name. On a Mac it need not be the machine's own."""
    machine = os.environ["ARCHFLAGS"].split()[-1] if MACOS else platform.machine()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine)


def spelled(flags: list[str]) -> list[str]:
    """Flags of GCC and Clang as the compiler at hand takes them: clang-cl passes on what follows /clang:."""
    return [f"/clang:{flag}" for flag in flags] if WINDOWS else flags


# No flag here may loosen IEEE arithmetic: results are the same bits on every machine.
#   -ffp-contract=off    multiply-adds are fused where the source says so, not where the compiler likes
#   -fno-math-errno      sqrt may become one instruction; nobody reads errno
#   -fno-trapping-math   selects may be vectorised; nobody unmasks floating-point traps
#   -fvisibility=hidden  each object exports its table only: no inline function of one set runs on another's CPU
#   -Wno-psabi           vectors wider than the ABI's registers never cross a call
C_FLAGS = [
    "-std=c11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-psabi",
]
# Python's own flags ask for -g: without debug information an installed package is a fifth of the size.
C_FLAGS += ["-O1", "-g"] if DEBUG else ["-O3", "-g" if PROFILE else "-g0"]
C_FLAGS += [f"-fsanitize={SANITIZE}", "-g", "-fno-omit-frame-pointer"] if SANITIZE else []
# setuptools takes what it finds in a build folder for its own: a folder for each way of building.
BUILD = "-".join(["build/" + ("debug" if DEBUG else "release"), *filter(None, [SANITIZE.replace(",", "-")])])
BUILD += "-profile" if PROFILE else ""
BUILD += "-coverage" if COVERAGE else ""
BUILD += "" if os.environ.get("FASTMLP_OPENMP", "1") != "0" else "-serial"
LINK_FLAGS = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
if not (DEBUG or SANITIZE or PROFILE or WINDOWS):
    LINK_FLAGS += ["-Wl,-x" if MACOS else "-Wl,-s"]  # without the symbols that only a debugger reads
C_FLAGS = spelled(C_FLAGS)


def instruction_sets() -> list[tuple[str, int, list[str]]]:
    """Rows of isa.def for this architecture: name, bytes in a vector, flags."""
    row = re.compile(r'^ISA\((\w+), (\w+), .*?, (\d+), "(.*)"\)$', re.MULTILINE)
    rows = row.findall((CSRC / "isa.def").read_text(encoding="utf-8"))
    return [
        (name, int(size), spelled(flags.split()))
        for name, arch, size, flags in rows
        if arch in ("any", target_machine())
    ]


def csrc_files() -> list[str]:
    return [str(path) for path in sorted(CSRC.rglob("*.*"))]


class BuildKernels(build_ext):
    """build_ext that compiles csrc first and links its objects into the extension that needs them."""

    def run(self) -> None:
        super().run()
        self.install_library(self.library)  # here, since setuptools sets inplace to 0 while it builds

    def build_extensions(self) -> None:
        if WINDOWS:
            self.use_clang_cl()
        self.require_toolchain()
        compile_openmp, link_openmp = self.openmp_flags()
        if compile_openmp and self.has_pause(compile_openmp, link_openmp):
            compile_openmp.append("-DFM_HAS_PAUSE")
        for extension in self.extensions:
            extension.extra_compile_args += C_FLAGS + compile_openmp
            extension.extra_link_args += LINK_FLAGS + link_openmp
        by_name = {extension.name: extension for extension in self.extensions}
        by_name["fastmlp.core._dispatch"].extra_objects += self.compile_csrc()
        self.library = self.compile_library()
        by_name["fastmlp.predict"].extra_objects += self.library
        super().build_extensions()

    def use_clang_cl(self) -> None:
        """Microsoft's headers and linker, but LLVM's compiler: cl.exe lacks vector types and C11's atomics."""
        clang = shutil.which("clang-cl")
        if clang is None:
            raise SystemExit(
                "fastmlp: clang-cl was not found; install LLVM, or Visual Studio's component 'C++ Clang tools for "
                "Windows'."
            )
        self.compiler.initialize()
        self.compiler.cc = clang
        self.compiler.compile_options.remove("/GL")  # cl.exe's own intermediate code

    def compile_csrc(self) -> list[str]:
        """Every kernel, and the choice among them."""
        return [*self.compile_kernels("", []), *self.compile_sources([CSRC / "dispatch.c"])]

    def compile_kernels(self, prefix: str, macros: list[tuple[str, str | None]]) -> list[str]:
        # setuptools takes an object that is already there for up to date if the source's name is the same: a folder
        # each.
        objects = []
        for name, vector_bytes, flags in instruction_sets():
            for bits in (32, 64):
                objects += self.compiler.compile(
                    [str(CSRC / "kernels" / "kernels.c")],
                    output_dir=os.path.join(self.build_temp, f"{prefix}{name}_{bits}"),
                    include_dirs=[str(CSRC)],
                    macros=[("FM_ISA", name), ("FM_BITS", str(bits)), ("FM_VECTOR_BYTES", str(vector_bytes)), *macros],
                    extra_postargs=C_FLAGS + flags,
                    depends=csrc_files(),
                )
        return objects

    def compile_sources(self, sources: list[Path]) -> list[str]:
        objects: list[str] = self.compiler.compile(
            list(map(str, sources)),
            output_dir=self.build_temp,
            include_dirs=[str(CSRC)],
            extra_postargs=C_FLAGS,
            depends=csrc_files(),
        )
        return objects

    def compile_library(self) -> list[str]:
        """Objects of the static library: csrc/predict, and the kernels that a row's prediction needs."""
        objects = self.compile_kernels("predict_", [("FM_PREDICT_ONLY", None)])
        named = []  # in a library, the later of two objects with the same name replaces the earlier
        for path in map(Path, objects):
            part = next(parent.name for parent in path.parents if parent.name.startswith("predict_"))
            named.append(str(path.with_name(f"{part}{path.suffix}")))
            shutil.copyfile(path, named[-1])
        sources = [CSRC / "dispatch.c", *sorted((CSRC / "predict").glob("*.c"))]
        return [*named, *self.compile_sources(sources)]

    def install_library(self, objects: list[str]) -> None:
        """The static library, its header, and the files by which pkg-config and CMake find them."""
        root = Path("fastmlp" if self.inplace else os.path.join(self.build_lib, "fastmlp")) / "interop" / "c"
        shutil.rmtree(root, ignore_errors=True)
        self.mkpath(str(root / "include"))
        shutil.copyfile(CSRC / "predict" / "fastmlp_predict.h", root / "include" / "fastmlp_predict.h")
        self.compiler.create_static_lib(objects, "fastmlp_predict", output_dir=str(root / "lib"))
        values = {"@VERSION@": self.distribution.get_version(), "@LIBM@": "" if WINDOWS else "-lm"}
        for template, folder in [
            ("fastmlp.pc", "pkgconfig"), ("fastmlp-config.cmake", "cmake/fastmlp"),
            ("fastmlp-config-version.cmake", "cmake/fastmlp"),
        ]:  # fmt: skip
            text = (CSRC / "predict" / f"{template}.in").read_text(encoding="utf-8")
            for mark, value in values.items():
                text = text.replace(mark, value)
            self.mkpath(str(root / "lib" / folder))
            (root / "lib" / folder / template).write_text(text, encoding="utf-8")

    def compiles(self, source: str, flags: list[str], link_flags: list[str] | None = None) -> bool:
        """Whether the source compiles and, where link flags are given, links."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.c"
            path.write_text(source)
            include = [sysconfig.get_paths()["include"]]
            try:
                objects = self.compiler.compile(
                    [str(path)], output_dir=folder, include_dirs=include, extra_postargs=flags
                )
                if link_flags is not None:
                    self.compiler.link_executable(objects, str(Path(folder) / "probe"), extra_postargs=link_flags)
            except (CompileError, LinkError, ExecError, PlatformError):
                return False
        return True

    def require_toolchain(self) -> None:
        if not self.compiles("int answer(void) { return 42; }\n", []):
            raise SystemExit(
                "fastmlp: no working C compiler was found; install gcc or clang (Debian, Ubuntu: apt-get install gcc; "
                "macOS: xcode-select --install) or name one in the environment variable CC."
            )
        if not self.compiles("#include <Python.h>\n", []):
            raise SystemExit(
                "fastmlp: Python.h was not found; install the headers of this Python "
                "(Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)."
            )
        intrinsics = "#include <immintrin.h>\n" if target_machine() == "x86_64" else ""
        if not self.compiles(intrinsics + "typedef float v __attribute__((vector_size(16)));\n", C_FLAGS):
            raise SystemExit(
                "fastmlp: the C compiler lacks C11 or GCC's vector extension; use gcc >= 9 or clang >= 10."
            )

    def openmp_flags(self) -> tuple[list[str], list[str]]:
        """For the compiler, for the linker."""
        if os.environ.get("FASTMLP_OPENMP", "1") == "0":
            return [], []
        probe = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        for compile_flags, link_flags in openmp_spellings():
            if self.compiles(probe, compile_flags, link_flags):
                return compile_flags, link_flags
        raise SystemExit(
            "fastmlp: the C compiler has no OpenMP; install its runtime (clang on Debian, Ubuntu: apt-get install "
            "libomp-dev; macOS: brew install libomp, or LIBOMP_PREFIX=/where/it/is; Windows: LLVM's own installer "
            "brings it) or set FASTMLP_OPENMP=0 to build for one thread."
        )

    def has_pause(self, compile_openmp: list[str], link_openmp: list[str]) -> bool:
        """Whether the OpenMP runtime can be told to let its threads go (OpenMP 5.0; gcc 9): csrc/runtime/fork.h."""
        call = "omp_pause_resource_all(omp_pause_hard)"
        return self.compiles(f"#include <omp.h>\nint main(void) {{ return {call}; }}\n", compile_openmp, link_openmp)


def openmp_spellings() -> list[tuple[list[str], list[str]]]:
    """Flags for compiler and linker, to be tried in turn."""
    if WINDOWS:  # the linker is Microsoft's, which does not know where LLVM's libraries are
        llvm = Path(shutil.which("clang-cl") or "").parent.parent
        return [(["/openmp"], ["libomp.lib", f"/LIBPATH:{llvm / 'lib'}"])]
    plain = (["-fopenmp"], ["-fopenmp"])
    if not MACOS:
        return [plain]
    apple = ["-Xpreprocessor", "-fopenmp"]  # Apple's driver refuses the flag, its compiler takes it
    prefixes = [os.environ.get("LIBOMP_PREFIX"), "/opt/homebrew/opt/libomp", "/usr/local/opt/libomp"]
    spellings = [
        ([*apple, f"-I{prefix}/include"], [f"-L{prefix}/lib", "-lomp"])
        for prefix in prefixes
        if prefix and Path(prefix).is_dir()
    ]
    return [*spellings, plain, (apple, ["-lomp"])]


def extension(name: str) -> Extension:
    macros = [("CYTHON_WITHOUT_ASSERTIONS", "1")] if not DEBUG else []
    macros += [("FM_PROFILE", "1")] if PROFILE else []
    # Lines without the interpreter's lock are not traced: threads of a parallel region that wait for it deadlock.
    macros += [("CYTHON_TRACE", "1")] if COVERAGE else []
    return Extension(
        f"fastmlp.{name}",
        [f"fastmlp/{name.replace('.', '/')}.pyx"],
        include_dirs=[str(CSRC), str(CSRC / "predict")],
        define_macros=macros,
        depends=csrc_files(),
    )


def extensions() -> list[Extension]:
    from Cython.Build import cythonize

    directives = {
        "language_level": 3,
        "boundscheck": DEBUG,
        "wraparound": False,
        "initializedcheck": DEBUG,
        "cdivision": True,
        "embedsignature": True,
        "freethreading_compatible": True,
        "linetrace": COVERAGE,
    }
    names = (
        "_atomic",
        "_arrays",
        "_dispatch",
        "_shuffle",
        "_plan",
        "_predict",
        "_workspace",
        "_step",
        "_trainer",
        "_testing",
    )
    # Coverage's plugin looks for the C file beside the .pyx file.
    build_dir = None if COVERAGE else f"{BUILD}/cython"
    modules = [*(extension(f"core.{name}") for name in names), extension("predict")]
    return cythonize(modules, compiler_directives=directives, build_dir=build_dir)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels}, options={"build": {"build_base": BUILD}})
