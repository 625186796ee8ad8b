"""Draws the pictures of pages again: ``python -P docs/_ext/pictures.py quickstart guide``.

A page's code saves a picture by its plain name (``plt.savefig("loss.png")``) and the page shows ``pictures/loss.png``.
The pictures are committed, so that the pages show them on GitHub too.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import matplotlib

DOCS = Path(__file__).resolve().parents[1]


def draw(page: Path) -> None:
    """Run a page's Python in an empty folder, and keep the pictures that it shows."""
    text = page.read_text()
    session: dict = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for code in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            exec(compile(code, str(page), "exec"), session)
        for name in re.findall(r"\]\(pictures/([\w.-]+)\)", text):
            (DOCS / "pictures" / name).write_bytes(Path(name).read_bytes())
        os.chdir(DOCS)


if __name__ == "__main__":
    matplotlib.use("agg")
    matplotlib.rcParams.update({"figure.figsize": (7, 3.2), "figure.constrained_layout.use": True, "savefig.dpi": 110})
    (DOCS / "pictures").mkdir(exist_ok=True)
    for stem in sys.argv[1:]:
        draw(DOCS / f"{stem}.md")
