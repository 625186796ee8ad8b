"""Where the pages of the documentation are, for the link that scikit-learn puts on an estimator's diagram in a notebook.

No address is written here: it is the ``Documentation`` entry of [project.urls] in pyproject.toml, as the installed package
has it, unless the environment variable FASTMLP_DOCS_URL names another, a local build (file:///...), say. Without
either there is no link. Imported by ``base`` and ``ensemble``.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import metadata

#: Environment variable with the address of the folder that holds index.html.
VARIABLE = "FASTMLP_DOCS_URL"
# A page for each class of the API, as sphinx.ext.autosummary names them.
_PAGE = "generated/fastmlp.{estimator_name}.html"


class DocumentationLink:
    """What scikit-learn's estimators ask for the link to their page."""

    _doc_link_module = "fastmlp"

    @property
    def _doc_link_template(self) -> str:
        """An address with {estimator_name} in it; '' for no link."""
        folder = os.environ.get(VARIABLE) or _published()
        return f"{folder.rstrip('/')}/{_PAGE}" if folder else ""


@lru_cache(maxsize=1)
def _published() -> str:
    """The address in the package's metadata, '' if there is none."""
    try:
        entries = metadata.metadata("fastmlp").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # run from a checkout
        return ""
    pairs = [entry.partition(",") for entry in entries]
    return next((address.strip() for label, _, address in pairs if label.strip().lower() == "documentation"), "")
