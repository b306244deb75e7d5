"""How Sphinx builds the site: `sphinx-build -j 2 -W docs docs/_build/html`."""

import os
import sys
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[1])
sys.path[:0] = [str(Path(__file__).parent / "extensions"), ROOT]
# Each page runs in its own process, which imports the source tree.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))

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

nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False


# Members without an underscore that other modules of the library call and users do not, and those with which
# scikit-learn routes metadata.
INNER = """
TAPE PASSING another carried carried_rows carry check_same check_sequences claim count drawing dropouts
expected_tensors forget_window from_saved backpropagate copy_state hand_over index input_gradient looks_up
loop make_room OVER_TIME parameter_gradients part_losses period plan_backward plan_forward read read_part
reader reads_words recurrent roll_back run_backward run_forward score score_part scored scratch_bytes
share_constants tape time_blocks transposed restore_tape window_rows workspace
head_and_outputs planned_epochs
get_metadata_routing set_fit_request set_partial_fit_request set_score_request
AffineLoss.mean TimeAffineSquaredLoss.mean Cell.is_plain Cell.random Cell.rows ExactBPTT.batches
ExactBPTT.windows PredictionIntervals.measured TimeEmbedding.rows
"""  # `Class.member` where another class has a public member of this name


def skip_member(app: object, what: str, name: str, member: Any, skip: bool, options: object) -> bool | None:
    """Skip inner members, and fields of named tuples, which the docstring of their class describes."""
    function = getattr(member, "fget", None) or getattr(member, "func", None) or member
    names = {name.rpartition(".")[2], getattr(function, "__qualname__", name)}
    return True if names & set(INNER.split()) or type(member).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_member)


templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["rnnfast.css"]
html_copy_source = False
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
