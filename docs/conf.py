"""Settings of the site: `make docs`. What is made of other files is in _ext/site_pages.py. Nothing is fetched from a network."""

import sys
from pathlib import Path

import fastmlp

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "fastmlp"
version = release = fastmlp.__version__
author = "the fastmlp developers"
project_copyright = author

extensions = [
    "site_pages",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated/pictures", "generated/examples/*.py", "generated/examples/*.ipynb"]
templates_path = ["_templates"]
toc_object_entries_show_parents = "hide"

# Markdown: headings can be linked to, as on a repository's page.
myst_heading_anchors = 3

# Docstrings: numpydoc's sections, members from the class's template, signatures as they are written.
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# The gallery: every script of examples/ is run.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/examples",
    "filename_pattern": r"\.py$",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("fastmlp",),
    "reset_argv": "site_pages.picture_path",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "fastmlp"
html_static_path = ["_static"]
html_css_files = ["fastmlp.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "navbar_align": "left",
}
html_sidebars = {"index": [], "quickstart": [], "faq": []}
