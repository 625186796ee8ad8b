"""Versions that stand in more than one file of the repository are the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import fastmlp

ROOT = Path(__file__).parents[1]


def test_hooks_have_the_versions_of_the_lint_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    hooks = re.findall(r"additional_dependencies: \[(.+)\]", (ROOT / ".pre-commit-config.yaml").read_text())
    tools = {requirement.split("==")[0] for requirement in extras["lint"]} - {"mypy"}
    assert tools <= {requirement.split("==")[0] for requirement in hooks}
    assert {hook for hook in hooks if hook.split("==")[0] in tools} <= set(extras["lint"])


def test_citation_has_the_version():
    assert f"version: {fastmlp.__version__}\n" in (ROOT / "CITATION.cff").read_text()
