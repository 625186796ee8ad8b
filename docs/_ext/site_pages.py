"""The site's own part of the Sphinx build: pages that are made of what stands elsewhere in the repository.

    generated/api.rst        the names of ``fastmlp.__all__``, grouped by the module that each comes from
    generated/results/       the tables that the benchmarks wrote
    generated/CHANGELOG.md   and CONTRIBUTING.md
    guide.md                 gains every page of docs/ that no other page lists

It refuses to hold a list of names or pages: what is new appears by itself. Nothing under generated/ is committed.
"""

from __future__ import annotations

import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from docutils.nodes import Element
from docutils.utils import get_source_line
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import fastmlp

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
GENERATED = DOCS / "generated"
RESULTS = ROOT / "benchmarks" / "results"

# What a group of the interface is called, in their order; a module that is not here is a group by its own name, after them.
TITLES = {
    "fastmlp.estimators.classifier": "Estimators",
    "fastmlp.estimators.ensemble": "Ensembles",
    "fastmlp.network.network": "Networks without scikit-learn",
    "fastmlp.training.schedules": "Learning-rate schedules",
    "fastmlp.inspection.learning_rate_range": "Tuning",
    "fastmlp.inspection.display": "Displays",
    "fastmlp.estimators.persistence": "Saving and loading",
    "fastmlp.network.persistence": "Files",
    "fastmlp.estimators.conversion": "Conversion from scikit-learn",
    "fastmlp": "The installation",
}
# What users are handed without asking for it by name.
RETURNED = {"fastmlp.inspection.learning_rate_range": ["inspection.learning_rate_range.LearningRateRange"]}
NEW_PAGES = "<!-- new pages -->"
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
LINK_OUT = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def home_of(name: str) -> str:
    """The public module that a name of the interface comes from."""
    home = getattr(getattr(fastmlp, name), "__module__", "fastmlp")
    return ".".join(part for part in home.split(".") if not part.startswith("_"))


def interface() -> dict[str, list[str]]:
    """Names of the public interface by module, in the order of ``TITLES``, then as they come."""
    groups: dict[str, list[str]] = {module: [] for module in TITLES}
    for name in fastmlp.__all__:
        if not name.startswith("__"):
            groups.setdefault(home_of(name), []).append(name)
    return {module: names + RETURNED.get(module, []) for module, names in groups.items() if names}


def first_paragraph(module: str) -> str:
    """What a module says of itself, without its name before the colon."""
    text = (importlib.import_module(module).__doc__ or "").split("\n\n")[0]
    words = " ".join(text.split()).split(": ", 1)[-1]
    return words[:1].upper() + words[1:]


def write(path: Path, text: str) -> None:
    """Write if the text is new: an unchanged page is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def write_pages(app: Sphinx, config: Any) -> None:
    """Make the pages under generated/, before Sphinx looks for them."""
    lines = ["API", "===", "", "All that is public, by what it is for.", ""]
    for module, names in interface().items():
        title = TITLES.get(module, module.rpartition(".")[2].replace("_", " ").capitalize())
        lines += [title, "-" * len(title), "", first_paragraph(module), ""]
        lines += [".. currentmodule:: fastmlp", "", ".. autosummary::", "   :toctree: api", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in names] + [""]
    write(GENERATED / "api.rst", "\n".join(lines))

    for path in sorted(RESULTS.rglob("*.md")):
        write(GENERATED / "results" / path.relative_to(RESULTS), path.read_text())
    listed = "\n".join(_entry(path) for path in sorted(RESULTS.rglob("*.md")))
    write(
        GENERATED / "results" / "index.md",
        "# Benchmark results\n\nWritten by the benchmarks themselves, on the machine that each names at its top; "
        "[Performance](../../performance.md) reads them.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n",
    )
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        write(GENERATED / name, (ROOT / name).read_text())


def _entry(path: Path) -> str:
    """A toctree's entry for a table of results; one in a folder of its own is told apart by the folder's name."""
    page = path.relative_to(RESULTS).with_suffix("")
    heading = path.read_text().splitlines()[0].removeprefix("# ")
    return f"{page}" if page.parent == Path() else f"{heading}: {page.parent.name.replace('_', ' ')} <{page}>"


def new_pages() -> list[str]:
    """The pages of docs/ that no toctree of another one names."""
    pages = sorted(DOCS.glob("*.md"))
    entries = [
        line.strip() for page in pages for block in TOCTREE.findall(page.read_text()) for line in block.splitlines()
    ]
    named = {re.sub(r".*<(.*)>$", r"\1", entry) for entry in entries}  # an entry may have a title before it
    return [page.stem for page in pages if page.stem not in named | {"index"}]


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """List the new pages in the guide; lead links that go out of docs/ to the page that is made of their goal."""
    source[0] = source[0].replace(NEW_PAGES, "\n".join(new_pages()))
    if not docname.startswith("generated/"):
        source[0] = LINK_OUT.sub(partial(_inside, (DOCS / docname).parent), source[0])


def _inside(folder: Path, link: re.Match[str]) -> str:
    """A link from a page in `folder` to the page of the site; its words alone where there is none, as for a folder of the sources."""
    words, path, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
    if not path.exists():
        raise FileNotFoundError(f"a page links to {link[2]}, which is not there")
    if path.is_relative_to(DOCS):
        return link[0]
    if path.is_relative_to(RESULTS) and path.suffix == ".md":
        return f"[{words}](/generated/results/{path.relative_to(RESULTS)}{anchor})"
    if path in (ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"):
        return f"[{words}](/generated/{path.name}{anchor})"
    if path in (ROOT / "examples", ROOT / "examples" / "README.md"):
        return f"[{words}](/generated/examples/index.rst)"
    if path.parent == ROOT / "examples" and path.suffix == ".py":
        return f"[{words}](/generated/examples/{path.stem}.rst)"
    return words


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """The guide is read again in each build: a page may have come or gone."""
    return ["guide"]


def leave_upstream_labels(app: Sphinx, env: BuildEnvironment, node: Element, words: Element) -> Element | None:
    """Labels and terms of scikit-learn's user guide, in the docstrings inherited from it, become plain words."""
    source, _ = get_source_line(node)
    return words if node.get("refdomain") == "std" and "docstring of sklearn." in (source or "") else None


def picture_path(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Arguments of an example: where to leave its picture, so that nothing is left beside its source."""
    pictures = GENERATED / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    return [str(pictures / f"{Path(script_vars['src_file']).stem}.png")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", write_pages)
    app.connect("source-read", read_page)
    app.connect("env-get-outdated", outdated)
    app.connect("missing-reference", leave_upstream_labels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
