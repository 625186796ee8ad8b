#!/usr/bin/env bash
# The AArch64 build, cross-compiled and emulated: `python -m fastmlp check`, then the kernel tests. On Debian, with
#
#     apt-get install qemu-user-static gcc-aarch64-linux-gnu
#
# An interpreter and its libraries are unpacked from Debian's arm64 packages into FOLDER, NumPy and the rest from their wheels;
# nothing is installed into this system. qemu-user runs the interpreter; the compiler that setup.py calls runs natively.
#
#     tests/aarch64.sh FOLDER [test files]
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd)
shift
tests=("${@:-tests/core/test_kernels.py}")
for tool in qemu-aarch64-static aarch64-linux-gnu-gcc apt-get dpkg-deb; do
    command -v "$tool" > /dev/null || { echo "aarch64.sh needs $tool" >&2; exit 1; }
done
root=$folder/root
python=$folder/python

if [ ! -e "$folder/unpacked" ]; then
    mkdir -p "$folder"/lists/partial "$folder"/cache/archives/partial "$root"
    apt=(apt-get --quiet --quiet -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::status=/dev/null
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache")
    "${apt[@]}" update
    "${apt[@]}" install --yes --no-install-recommends --download-only python3 libpython3-dev libgomp1 libstdc++6
    for package in "$folder"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    # -0 makes sys.executable this file, so that what the interpreter starts is emulated too.
    cat > "$python" << 'SCRIPT'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
PYTHONHOME="$here/root/usr" exec qemu-aarch64-static -L "$here/root" -0 "$here/python" "$here/root/usr/bin/python3" "$@"
SCRIPT
    chmod +x "$python"
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    platforms=()
    for glibc in 17 24 27 28 31 34; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
    python3 -m pip install --quiet --upgrade --target "$folder/site" --only-binary=:all: --implementation cp \
        --python-version "$version" "${platforms[@]}" --platform manylinux2014_aarch64 \
        numpy scipy scikit-learn pytest pandas threadpoolctl 'Cython>=3.1' 'setuptools>=77'
    touch "$folder/unpacked"
fi

# A copy of the tree: compiled modules of this machine must not lie beside the others.
mkdir -p "$folder/tree"
cp -r --preserve=timestamps "$tree"/{setup.py,pyproject.toml,README.md,LICENSE,csrc,fastmlp,tests} "$folder/tree/"
cd "$folder/tree"
rm -f fastmlp/*.x86_64-linux-gnu.so
export PYTHONPATH=$folder/site:$folder/tree
headers=("$root"/usr/include/python3.*)
CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" CFLAGS="-I${headers[0]} -idirafter $root/usr/include" \
    "$python" setup.py --quiet build_ext --inplace
"$python" -c 'import fastmlp, platform; print(platform.machine()); fastmlp.show_config()'
"$python" -m fastmlp check | tail -n 1
"$python" -m pytest -m "" -p no:cacheprovider "${tests[@]}"
