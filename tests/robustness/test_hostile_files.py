"""Damaged and forged files raise one class of error; a process that dies while saving leaves the old file or the new
one."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fuzz_files
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from helpers import classification, output_of_fork, rest_slow

import fastmlp
from fastmlp import MLPClassifier, Network
from fastmlp.estimators import persistence

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = classification(3)
SMALL = {"hidden_layer_sizes": (9, 7), "max_iter": 3, "random_state": 5}
MANY = (300, 3000)  # mutated files; docs/saving.md says how to run more
KILLS = 20


@pytest.fixture
def path(tmp_path):
    """A file of a fitted classifier."""
    MLPClassifier(**SMALL).fit(X, Y).save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def refused(path, match, load=fastmlp.load):
    """The file raises FileFormatError, which names it."""
    with pytest.raises(fastmlp.FileFormatError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)


def change(path, model=None, metadata=None, **arrays):
    """Rewrite a file with changes of its description (a function that changes it), metadata and arrays; None removes
    one."""
    header, _ = fuzz_files.parts(path.read_bytes())
    content = json.loads(header["__metadata__"]["model"])
    if model is not None:
        model(content)
    tensors = {**safetensors.numpy.load_file(path), **arrays}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    metadata = {**header["__metadata__"], "model": json.dumps(content), **(metadata or {})}
    path.write_bytes(
        safetensors.numpy.save(tensors, metadata={name: text for name, text in metadata.items() if text is not None})
    )


@pytest.mark.parametrize("many", rest_slow(MANY, MANY[0]))
def test_mutated_files_are_refused_or_work(many):
    """Random bytes, cuts, other headers, descriptions and numbers: no crash, no hang, no memory that the file does not
    justify."""
    printed = output_of_fork(f"import runpy; runpy.run_path({fuzz_files.__file__!r}, run_name='__main__')", str(many))
    assert "'refused'" in printed
    assert "'loaded'" in printed


def test_mutations_do_mutate():
    """Each kind makes files that differ from what they were, and from each other."""
    data = sorted(fuzz_files.DATA.glob("classifier*.safetensors"))[0].read_bytes()
    for mutation in fuzz_files.MUTATIONS:
        draws = random.Random(1)
        files = set()
        for _ in range(20):
            try:
                files.add(mutation(data, draws))
            except UnicodeEncodeError:
                continue
        assert len(files - {data}) > 5, mutation.__name__


def test_what_is_no_model_file_is_refused(tmp_path):
    """An empty file, a folder, a pipe, other formats; a missing file is the system's error."""
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        fastmlp.load(path)
    refused(tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    for content in (b"", b"\0" * 7, b"\xff" * 100, pickle.dumps(MLPClassifier()), b"\x08" + b"\0" * 7 + b'{"a": 1}'):
        path.write_bytes(content)
        refused(path, "it is")
    path.write_bytes(pickle.dumps(MLPClassifier()))
    refused(path, "it is a pickle, which pickle.load or joblib.load reads")
    safetensors.numpy.save_file({"a": np.zeros(3)}, path)
    refused(path, "not written by fastmlp")


@pytest.mark.parametrize(("metadata", "match"), [
    ({"fastmlp_format": "2", "fastmlp_version": "9.9"},
        "format '2', written by fastmlp '9.9'; this version reads format 1"),
    ({"fastmlp_format": None}, "not written by fastmlp"), ({"more": "x"}, "metadata must be"),
    ({"model": None}, "metadata must be"),
    ({"model": "{"}, "does not describe"), ({"model": "[]"}, "must be an object"),
    ({"model": '{"class": "os.system"}'}, "class"),
    ({"model": "[" * 10**6}, "does not describe"), ({"model": '{"a": NaN}'}, "NaN"),
    ({"model": '{"a": 1e999}'}, "too large"),
    ({"model": '{"a": 1, "a": 2}'}, "twice"), ({"model": "9" * 10**5}, "does not describe"),
])  # fmt: skip
def test_strange_metadata_is_refused(metadata, match, path):
    change(path, metadata=metadata)
    refused(path, match)


def put(*keys, value):
    """A change of the description: the value at these keys."""

    def changed(model):
        for key in keys[:-1]:
            model = model[key]
        model[keys[-1]] = value

    return changed


@pytest.mark.parametrize(("model", "match"), [
    (put("class", value="MLPRegressor"), "lacks the field 'loss'"), (put("parameters", "alpha", value=-1), "alpha"),
    (put("parameters", "new", value=1), "unknown fields: \\['new'\\]"),
    (lambda model: model["parameters"].pop("alpha"), "lacks the field 'alpha'"),
    (put("parameters", "learning_rate", value={"schedule": {"name": "cosine"}}), "final"),
    (put("parameters", "activation", value=["os"]), "activation"),
    (put("parameters", "alpha", value={"eval": "1"}), "unknown type 'eval'"),
    (put("parameters", "estimator", value=1), "unknown"),
    (put("parameters", "random_state", value={"random_state": {"position": 700, "has_gauss": 0, "gauss": 0.0}}),
        "position"),
    (put("fitted", "network", "layer_sizes", value=[13, 9, 7, 2**40]), "shape"),
    (put("fitted", "network", "layer_sizes", value=[13]), "layer_sizes"),
    (put("fitted", "network", "layer_sizes", value=[True, 9, 7, 3]), "layer_sizes"),
    (put("fitted", "network", "activations", value=["relu"]), "activations"),
    (put("fitted", "network", "dtype", value="float32"), "type float32"),
    (put("fitted", "network", "batch_norm", value=True), "scales"),
    (put("fitted", "network", "out_activation", value="exp"), "out_activation"),
    (put("fitted", "n_features_in", value=12), "13 inputs for 12"),
    (put("fitted", "target", "type", value="binary"), "binary"),
    (put("fitted", "target", "classes", value=["a", "b", "a"]), "rising"),
    (put("fitted", "layer_rates", value=[1, 1]), "layer_rates"),
    (put("fitted", "layer_rates", value=[1, 1, -1]), "layer_rates"),
    (put("fitted", "record", "t_", value=-1), "t_"), (put("fitted", "record", "t_", value=2**63), "t_"),
    (put("fitted", "record", "loss_", value="0"), "loss_"),
    (put("fitted", "record", "history_", value=[1]), "history_"),
    (put("fitted", "record", "extra_", value=1), "unknown"),
    (put("fitted", "feature_names_in", value=["a"]), "feature_names_in"),
    (put("fitted", "members", value=[]), "unknown"),
    (put("fitted", "continuation",
        value={"optimizer": {"rule": "adam", "n_updates": 1, "learning_rate": 0.1}, "generator": None}), "optimizer"),
])  # fmt: skip
def test_every_field_is_checked(model, match, path):
    """A wrong type, range, name, shape, or one that contradicts another."""
    change(path, model)
    refused(path, match)


@pytest.mark.parametrize(("arrays", "match"), [
    ({"coefs.0": None}, "'coefs.0' is missing"), ({"more": np.zeros(3)}, "do not belong"),
    ({"coefs.0": np.zeros((9, 13))}, "shape"),
    ({"coefs.0": np.zeros((13, 9), "float32")}, "float64"), ({"coefs.0": np.full((13, 9), np.inf)}, "finite"),
    ({"classes": None}, "classes"),
    ({"classes": np.array([0, 2, 1])}, "rising"), ({"classes": np.array([0, 1])}, "multiclass"),
    ({"classes": np.array([[1, 2, 3]], "uint32")}, "multiclass"),
    ({"classes": np.array([[97], [98], [0x110000]], "uint32")}, "code points"),
    ({"classes": np.array([0.0, 1.0, np.nan])}, "finite"),
])  # fmt: skip
def test_every_array_is_checked(arrays, match, path):
    """Its presence, its type and its values."""
    change(path, **arrays)
    refused(path, match)


def test_negative_variances_are_refused(tmp_path):
    """They would make NaN."""
    path = tmp_path / "network"
    Network((2, 3, 2), batch_norm=True, random_state=0).save(path)
    change(path, **{"variances.0": np.array([1, -1, 1], "float32")})
    refused(path, "variances")
    refused(path, "variances", Network.load)


def test_memory_is_that_of_the_file(tmp_path):
    """Loading takes the weights once and one layer of them beside; what a header only claims takes none."""
    path = tmp_path / "network"
    Network((300, 400, 400, 400, 300), random_state=0).save(path)
    fastmlp.load(path)
    size = path.stat().st_size
    tracemalloc.start()
    try:
        network = fastmlp.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
        assert network.parameters.nbytes > size / 1.5
        del network
        data = path.read_bytes()
        header, rest = fuzz_files.parts(data)
        header["coefs.1"]["shape"] = [400, 2**40]
        path.write_bytes(fuzz_files.joined(header, rest))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        refused(path, "header")
        assert tracemalloc.get_traced_memory()[1] - before < size / 10
    finally:
        tracemalloc.stop()


def test_keys_of_equal_hash_are_refused(path):
    """Without comparing them: a dict makes a number of comparisons that is quadratic in theirs."""
    keys = [i * (2**61 - 1) for i in range(3000)]
    change(path, put("parameters", "class_weight", value={"dict": [[key, 1.0] for key in keys]}))
    refused(path, "equal hashes")
    compared = []

    class Key(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            compared.append(other)
            return int.__eq__(self, other)

    with pytest.raises(fastmlp.FileFormatError, match="equal hashes"):
        persistence._build_dict([(Key(key), 1.0) for key in keys], "class_weight")
    assert not compared


@pytest.mark.parametrize("piece", rest_slow(["[]", '{"a":0}', '"aa"'], "[]"))
def test_descriptions_of_many_values_are_refused(piece, path):
    """Before they are parsed: each empty list of two characters would take 64 bytes."""
    description = f"[{','.join([piece] * 6_000_000)}]"
    change(path, metadata={"model": description})
    tracemalloc.start()
    try:
        refused(path, "more than 5,000,000 values")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(description)
    finally:
        tracemalloc.stop()


# --- writing ------------------------------------------------------------------------------------------------------


def test_file_is_flushed_before_it_is_renamed(path, monkeypatch):
    """The file, then its new name, then the folder that holds the name."""
    done = []
    flush, rename = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (done.append(os.readlink(f"/proc/self/fd/{descriptor}")), flush(descriptor))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("rename"), rename(old, new)))
    MLPClassifier(**SMALL).fit(X, Y).save(path)
    written, renamed, folder = done
    assert Path(written).parent == path.parent
    assert written.endswith(".tmp")
    assert renamed == "rename"
    assert folder == str(path.parent)


def test_failed_write_leaves_the_old_file(path, monkeypatch):
    """And nothing else, whatever fails."""
    estimator, before = MLPClassifier(**SMALL).fit(X, 2 - Y), path.read_bytes()

    def full(arrays, file, metadata):
        Path(file).write_bytes(b"half")
        raise safetensors.SafetensorError("No space left on device")

    def interrupted(old, new):
        raise KeyboardInterrupt

    for module, name, stub, error in (
        (safetensors.numpy, "save_file", full, OSError),
        (os, "replace", interrupted, KeyboardInterrupt),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stub)
            with pytest.raises(error):
                estimator.save(path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]
    nowhere = path.parent / "nowhere" / "model"
    with pytest.raises(FileNotFoundError) as caught:
        estimator.save(nowhere)
    assert caught.value.filename == str(nowhere)


WRITER = """
import sys
from fastmlp import Network
first, second = (Network((300, 300, 3), random_state=seed) for seed in (0, 1))
print("ready", flush=True)
while True:
    second.save(sys.argv[1])
    first.save(sys.argv[1])
"""


@pytest.mark.slow
def test_kill_leaves_the_old_file_or_the_new(tmp_path):
    """SIGKILL at random moments of a process that does nothing but save, over and over."""
    path, draws = tmp_path / "model", random.Random(0)
    both = [Network((300, 300, 3), random_state=seed) for seed in (0, 1)]
    both[0].save(path)
    found, left = set(), 0
    for _ in range(KILLS):
        with subprocess.Popen([sys.executable, "-P", "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(draws.uniform(0, 0.05))
            process.kill()
        got = Network.load(path).parameters
        found |= {seed for seed, network in enumerate(both) if np.array_equal(got, network.parameters)}
        assert any(np.array_equal(got, network.parameters) for network in both)
        others = set(os.listdir(tmp_path)) - {path.name}
        assert all(name.startswith((f".{path.name}.", ".tmp")) for name in others)
        left += bool(others)
        for name in others:
            (tmp_path / name).unlink()
    assert found == {0, 1}
    assert left  # some were killed in the middle


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_only_regular_files_are_replaced(tmp_path):
    """Not pipes, sockets, devices or folders; a name that ends like a folder's is one."""
    model = MLPClassifier((3,), max_iter=2).fit(np.eye(4), [0, 1, 0, 1])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link", tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(OSError, match=r"regular file|directory"):
            model.save(path)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_longest_names_can_be_written(tmp_path):
    """Up to what the file system takes, although the temporary file's name is longer than a short one."""
    model = MLPClassifier((3,), max_iter=2).fit(np.eye(4), [0, 1, 0, 1])
    for name in ("n" * 255, "\u03bb" * 127):
        model.save(tmp_path / name)
        assert fastmlp.load(tmp_path / name).n_iter_ == 2


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX systems only")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_folder_that_cannot_be_synced(number, tmp_path, monkeypatch):
    """A file system that does not do that is no failure; one that fails is."""
    model = MLPClassifier((3,), max_iter=2).fit(np.eye(4), [0, 1, 0, 1])
    flush = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if number == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(number)):
            model.save(tmp_path / "model")
    else:
        model.save(tmp_path / "model")
    assert fastmlp.load(tmp_path / "model").n_iter_ == 2
