"""Settings of the site (`make docs`). _ext/site_pages.py makes its navigation and the pages that come from other
files."""

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
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated/pictures", "generated/examples/*.py", "generated/examples/*.ipynb"]
templates_path = ["_templates"]
highlight_language = "text"  # a block without a language is an output
toc_object_entries_show_parents = "hide"

# Markdown: headings can be linked to, as on a repository's page.
myst_heading_anchors = 3

# Docstrings: numpydoc's sections, members from the class's template, signatures as they are written.
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Copy buttons on code, not on outputs; prompts are not copied.
copybutton_selector = ", ".join(f"div.highlight-{name} pre" for name in ("python", "Python", "sh", "bash", "pycon"))
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The gallery: every script of examples/ is run.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/examples",
    "filename_pattern": r"\.py$",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("fastmlp",),
    "within_subsection_order": "site_pages.GalleryOrder",
    "reset_argv": "site_pages.picture_path",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "fastmlp"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["fastmlp.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "text": "fastmlp"},
    "header_links_before_dropdown": 8,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "navbar_align": "left",
}
# Pages without pages below them need no sidebar.
html_sidebars = {page: [] for page in ("index", "faq", "performance")}
