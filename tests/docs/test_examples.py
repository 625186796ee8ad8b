"""The examples: each runs by itself, in silence but for what it prints, and leaves the picture it was asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
# What the extra `examples` brings.
EXTRA = ("matplotlib", "pandas")
# Far longer than any example takes: a script that hangs fails.
HANGS_AFTER = 900


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example_runs(script: Path, tmp_path: Path):
    """Exit status 0, no warning, a table; a picture where it is asked for, and no other file."""
    source = script.read_text()
    for name in EXTRA:
        if re.search(rf"^(import|from) {name}\b", source, re.MULTILINE):
            pytest.importorskip(name, reason=f'{name} is missing: pip install "fastmlp[examples]"')
    draws = "sys.argv" in source
    command = [sys.executable, "-P", str(script), *(["picture.png"] if draws else [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANGS_AFTER)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    assert len(done.stdout.splitlines()) > 2
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"] * draws
    if draws:
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_examples_are_listed():
    """README.md names every script, and no other, once."""
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [script.name for script in SCRIPTS]
    assert listed


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example_opens_as_a_gallery_page(script: Path):
    """The docstring is a title, underlined to its length, and a paragraph."""
    title, line, gap, *rest = script.read_text().removeprefix('"""\n').splitlines()
    assert line == "=" * len(title)
    assert (gap, bool(rest[0])) == ("", True)
