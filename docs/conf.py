"""Sphinx's settings for `make site`: everything that a page loads comes from the site itself."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The library from this checkout, and PyTorch, which it imports, from the project's own environment: it comes last, so
# that what both environments have is the site's.
sys.path.insert(0, str(ROOT / "lib"))
sys.path += map(str, (ROOT / ".venv").glob("lib/python*/site-packages"))

from reproduce.site import reference  # noqa: E402

project = "regnde"
version = release = PROJECT["version"]
author = "the regnde contributors"
copyright = f"{author}; text CC BY 4.0, code MIT"
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["files/**", "extra/**"]
default_role = "code"

# Pages and lessons
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
copybutton_exclude = ".linenos, .gp, .go"

# The reference
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"Field": "Field", "Rate": "Rate"}
napoleon_numpy_docstring = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# What pages load
MATHJAX = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg-full.js")
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}
html_theme = "pydata_sphinx_theme"
html_title = "regnde"
html_static_path = ["_static", str(MATHJAX)]
html_extra_path = [str(ROOT / "build" / "site-source" / "extra")]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": []}

CODE = re.compile(r"(``.*?``|`[^`]*`)")


ONE_SENTENCE = ("attribute", "data", "property")
"""Kinds whose docstrings have no sections: napoleon would read "Weights: one for each stage" as type and text."""
kept: dict[str, list[str]] = {}


def _plain(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: what reStructuredText would read as markup, as in |dt|, is escaped.

    Constants have theirs where they are defined, which autodoc does not find from the top of the package.
    """
    if what == "data":
        lines[:] = reference.docstring(name.rpartition(".")[2]).splitlines()
    for i, line in enumerate(lines):
        parts = CODE.split(line)
        lines[i] = "".join(
            part if j % 2 else re.sub(r"[|*](?=\S)|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for j, part in enumerate(parts)
        )
    kept[name] = list(lines)


def _as_it_was(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    if what in ONE_SENTENCE:
        lines[:] = [*kept[name], ""]


def setup(app: object) -> None:
    """Register what this file does to docstrings, before and after napoleon reads them."""
    app.connect("autodoc-process-docstring", _plain, priority=400)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", _as_it_was, priority=600)  # type: ignore[attr-defined]
