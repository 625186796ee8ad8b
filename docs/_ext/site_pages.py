"""The site's own part of the Sphinx build: navigation, links, and pages made from other files of the repository.

    generated/api.rst        the public names, by what they are for
    generated/results/       the tables and charts that the benchmarks wrote
    generated/*.md           CHANGELOG, CONTRIBUTING, SECURITY, RELEASING, CODE_OF_CONDUCT

Pages in docs/ are plain Markdown, so that they also read well on GitHub: this module adds their tables of contents, and
turns links to files outside of docs/ into links to the pages made from these files. Nothing under generated/ is
committed.
"""

from __future__ import annotations

import re
import shutil
from inspect import isclass, isroutine
from pathlib import Path
from typing import Any, get_type_hints

from docutils import nodes
from docutils.utils import get_source_line
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

import fastmlp
import fastmlp.interop

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
GENERATED = DOCS / "generated"
RESULTS = ROOT / "benchmarks" / "results"
COPIED = {path.stem: path for path in sorted(ROOT.glob("*.md")) if path.stem not in ("README", "CLAUDE")}

# The site's sections, in the order of a user's questions: title, page, pages below it. A page that no section names
# joins the guide, one in docs/developers/ the developers' section.
SECTIONS: list[tuple[str, str, list[str]]] = [
    ("Get started", "quickstart", ["install"]),
    (
        "Guide",
        "guide",
        [
            "data",
            "tables",
            "imbalance",
            "text",
            "memory-maps",
            "callbacks",
            "saving",
            "resuming",
            "serving",
            "c",
            "interop",
            "reproducibility",
            "methods",
        ],
    ),
    ("Coming from scikit-learn", "migration", ["scikit-learn"]),
    ("Performance", "performance", []),
    ("FAQ", "faq", []),
    ("API", "generated/api", []),
    ("Gallery", "generated/examples/index", []),
    (
        "Developers",
        "developers/index",
        [
            *(f"developers/{name}" for name in ("internals", "building", "promises", "performance-notes")),
            "generated/results/index",
            *(f"generated/{name}" for name in COPIED),
        ],
    ),
]

# The API page: title, a sentence, names. A public name that is missing here fails the build.
API = [
    ("Estimators", "scikit-learn's two estimators, with more to choose from.", ["MLPClassifier", "MLPRegressor"]),
    (
        "Tables",
        "Data frames as they come: numbers, categories, dates and gaps.",
        ["TabularClassifier", "TabularRegressor", "PiecewiseLinearEncoder"],
    ),
    ("Data larger than memory", "Rows that are read in blocks, from files or functions.", ["Blocks"]),
    (
        "Ensembles",
        "Several networks trained at once on one copy of the data.",
        ["MLPEnsembleClassifier", "MLPEnsembleRegressor"],
    ),
    (
        "Saving, loading, conversion",
        "Every estimator and network has a method `save`; estimators have `to_sklearn`.",
        ["load", "from_sklearn", "FileFormatError", "InconsistentVersionWarning"],
    ),
    (
        "Callbacks",
        "For `set_callbacks`, with scikit-learn 1.9.",
        ["Checkpoint", "CSVLogger", "TimeLimit", "StopAtTarget", "NotebookProgress"],
    ),
    (
        "Serving",
        "Scalers folded into the first layer, and predictions of single rows.",
        ["fold_scaler", "RowPredictor"],
    ),
    ("Networks without scikit-learn", "For services, and for optimizers of your own.", ["Network"]),
    (
        "Learning rates",
        "Schedules for the parameter `learning_rate`, and a test that finds the range of `learning_rate_init`.",
        [
            "OneCycle",
            "CosineDecay",
            "WarmupCosine",
            "ExponentialDecay",
            "StepDecay",
            "FlatCosine",
            "LogCosine",
            "learning_rate_range",
            "LearningRateRange",
        ],
    ),
    (
        "Plots",
        "Displays in the manner of scikit-learn's. They need matplotlib.",
        ["LossCurveDisplay", "WeightsDisplay"],
    ),
    (
        "Other frameworks",
        "Networks from and to other programs, of the module `fastmlp.interop`: see In and out.",
        [f"interop.{name}" for name in fastmlp.interop.__all__],
    ),
    (
        "The installation",
        "What was built, what this machine uses, and where C programs find the header and the library.",
        ["show_config", "get_include", "get_library_dir"],
    ),
]
# README's table of whole fits, which the landing page shows too.
FITS = "<!-- written by make bench-fits -->"
FITS_TABLE = re.compile(r"<!-- written by make bench-fits: begin -->\n(.*?)<!-- end -->", re.DOTALL)
LINK = re.compile(r"((?:!?\[[^\]]*)?\]\()(?!https?:|mailto:|#|/)([^)#\s]+)(#[^)]*)?\)")


def write(path: Path, text: str) -> None:
    """Write the text if it is new: Sphinx does not build an unchanged page again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def write_pages(app: Sphinx, config: Any) -> None:
    """Make the pages under generated/, before Sphinx looks for pages."""
    listed = {name for _, _, names in API for name in names}
    public = {name for name in fastmlp.__all__ if not name.startswith("__")}
    if missing := public - listed:
        raise LookupError(f"docs/_ext/site_pages.py, API: no group for {', '.join(sorted(missing))}")
    lines = ["API", "===", "", "The public names of fastmlp, by what they are for.", ""]
    for title, words, names in API:
        lines += [title, "-" * len(title), "", words.replace("`", "``"), "", ".. currentmodule:: fastmlp", ""]
        lines += [
            ".. autosummary::",
            "   :toctree: api",
            "   :nosignatures:",
            "",
            *(f"   {name}" for name in names if name in public or name.startswith("interop.")),
        ]
        lines += [*(f"   ~{name.removeprefix('fastmlp.')}" for name in returned(names)), ""]
    write(GENERATED / "api.rst", "\n".join(lines))

    tables = sorted(RESULTS.rglob("*.md"))
    for path in tables:
        write(GENERATED / "results" / path.relative_to(RESULTS), path.read_text())
    for path in [*RESULTS.rglob("*.png"), *RESULTS.rglob("*.svg")]:
        shutil.copy(path, GENERATED / "results" / path.relative_to(RESULTS))
    entries = "\n".join(_result(path) for path in tables)
    write(
        GENERATED / "results" / "index.md",
        "# Benchmark results\n\nThe tables as the benchmarks wrote them; each names its machine. "
        f"[Performance](/performance.md) explains them.\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n",
    )
    for name, path in COPIED.items():
        write(GENERATED / f"{name}.md", path.read_text())


def returned(names: list[str]) -> list[str]:
    """Classes of fastmlp without a public name, which these functions return."""
    hints = [
        get_type_hints(getattr(fastmlp, name)).get("return")
        for name in names
        if isroutine(getattr(fastmlp, name, None))
    ]
    paths = {f"{hint.__module__}.{hint.__qualname__}": hint for hint in hints if isclass(hint)}
    return [
        path for path, hint in paths.items() if path.startswith("fastmlp.") and hint.__name__ not in fastmlp.__all__
    ]


def _result(path: Path) -> str:
    """An entry of the table of contents; tables in a folder of their own have the folder's name in their title."""
    page = path.relative_to(RESULTS).with_suffix("")
    heading = path.read_text().splitlines()[0].removeprefix("# ")
    return f"{page}" if page.parent == Path() else f"{heading}: {page.parent.name.replace('_', ' ')} <{page}>"


def contents(docname: str) -> list[str]:
    """The pages below this one."""
    if docname == "index":
        return [f"{title} </{page}>" for title, page, _ in SECTIONS]
    named = {page for _, section, below in SECTIONS for page in (section, *below)}
    for _, page, below in SECTIONS:
        if page == docname:
            exist = [name for name in below if (DOCS / f"{name}.md").exists()]
            folder = DOCS if page == "guide" else DOCS / "developers" if page == "developers/index" else None
            found = (
                sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in folder.glob("*.md"))
                if folder
                else []
            )
            return [f"/{name}" for name in [*exist, *(name for name in found if name not in named | {"index"})]]
    return []


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Mend the links of a Markdown page, and add its table of contents."""
    page = DOCS / f"{docname}.md"
    if not page.exists():
        return
    original = page
    if FITS in source[0]:
        [table] = FITS_TABLE.findall((ROOT / "README.md").read_text())
        source[0] = source[0].replace(FITS, table.replace("](", "](../"))
    if docname.startswith("generated/results/"):
        original = RESULTS / page.relative_to(GENERATED / "results")
    elif page.parent == GENERATED:
        original = ROOT / page.name
    source[0] = LINK.sub(lambda link: _link(link, original), source[0])
    if below := contents(docname):
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(below) + "\n```\n"


def _link(link: re.Match[str], page: Path) -> str:
    """A link to a page of the site; the link's words alone where there is none, as for a folder of the sources."""
    opening, goal, anchor = link[1], link[2].rstrip("/"), link[3] or ""
    path = (page.parent / goal).resolve()
    if not path.exists():
        raise FileNotFoundError(f"{page.relative_to(ROOT)} links to {goal}, which does not exist")
    if path.is_relative_to(DOCS) and path.is_file():
        target = path.relative_to(DOCS).as_posix()
    elif path.is_relative_to(RESULTS) and path.is_file():
        target = f"generated/results/{path.relative_to(RESULTS).as_posix()}"
    elif path.parent == ROOT and path.stem in COPIED:
        target = f"generated/{path.name}"
    elif path in (ROOT / "examples", ROOT / "examples" / "README.md"):
        target = "generated/examples/index.rst"
    elif path.parent == ROOT / "examples" and path.suffix == ".py":
        target = f"generated/examples/{path.stem}.rst"
    elif path == ROOT / "fastmlp" / "__init__.py":
        target = "generated/api.rst"
    elif path == ROOT / "README.md":
        target = "index.md"
    else:
        return opening.lstrip("!")[1:-2]
    return f"{opening}/{target}{anchor})"


class LinkNames(SphinxTransform):
    """Names set as code become links: `docs/data.md` everywhere; in Markdown pages, public names such as `fastmlp.load`
    or `Network`."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        in_page = (DOCS / f"{self.env.docname}.md").exists()
        for literal in list(self.document.findall(nodes.literal)):
            if isinstance(literal.parent, (nodes.reference, nodes.title, pending_xref)):
                continue
            text = literal.astext()
            name, page = text.removeprefix("fastmlp.").removesuffix("()"), re.fullmatch(r"docs/([\w/-]+)\.md", text)
            if page and (ROOT / text).exists():
                target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page[1]}", "refexplicit": False}
            elif in_page and name in fastmlp.__all__ and name != "__version__":
                target = {"refdomain": "py", "reftype": "obj", "reftarget": f"fastmlp.{name}", "refexplicit": True}
            else:
                continue
            link = pending_xref("", refdoc=self.env.docname, refwarn=True, **target)
            literal.replace_self(link)
            link += literal


class GalleryOrder:
    """The order of the gallery: that of the table in examples/README.md."""

    def __init__(self, folder: str) -> None:
        self.listed = (Path(folder) / "README.md").read_text()

    def __call__(self, script: str) -> int:
        return self.listed.index(f"[{script}]")


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages with a table of contents are read again in each build: a page may be new or gone."""
    return [page for page in ("index", *(page for _, page, _ in SECTIONS)) if (DOCS / f"{page}.md").exists()]


def leave_upstream_labels(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, words: nodes.Element
) -> nodes.Element | None:
    """Labels and terms of scikit-learn's user guide, in the docstrings inherited from it, become plain words."""
    source, _ = get_source_line(node)
    return words if node.get("refdomain") == "std" and "docstring of sklearn." in (source or "") else None


def picture_path(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """The argument of an example: where to save its picture, away from its source."""
    pictures = GENERATED / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    return [str(pictures / f"{Path(script_vars['src_file']).stem}.png")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(LinkNames)
    app.connect("config-inited", write_pages)
    app.connect("source-read", read_page)
    app.connect("env-get-outdated", outdated)
    app.connect("missing-reference", leave_upstream_labels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
