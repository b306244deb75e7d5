"""How Sphinx builds the site: `sphinx-build -W docs docs/_build`."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent / "extensions"), str(Path(__file__).parents[1])]
# Each page runs in its own process, which imports the source tree.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

project = "rnnfast"
author = "The rnnfast developers"
copyright = "the rnnfast developers"
html_title = "rnnfast"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_design",
    "sphinx_copybutton",
    "mathml",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md", "extensions"]
suppress_warnings = ["myst.xref_missing"] if os.environ.get("RNNFAST_DOCS_DRAFT") else []

nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False


def skip_fields(
    app: object, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Leave the fields of named tuples to the docstring of their class, which describes them."""
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_fields)


templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["rnnfast.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"start": []}
