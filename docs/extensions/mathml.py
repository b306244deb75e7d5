"""Formulas as MathML, which browsers draw without JavaScript and without a network."""

import re
from typing import Any, NoReturn

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError


def drawn(node: Any, display: str) -> str:
    """The markup of a formula; an error for a label, and for LaTeX that would be shown as its source."""
    source = node.astext()
    if node.get("label"):
        raise ExtensionError(f"formulas have no numbers and no labels: {source}")
    markup = convert(source, display=display)
    if re.search(r"\\|&(?!#?\w+;)", markup):
        raise ExtensionError(f"latex2mathml does not know a command of this formula: {source}")
    return markup


def visit_inline(writer: Any, node: Any) -> NoReturn:
    """Write a formula inside a sentence, in place of its source."""
    writer.body.append(drawn(node, "inline"))
    raise SkipNode


def visit_block(writer: Any, node: Any) -> NoReturn:
    """Write a formula on lines of its own, in place of its source."""
    writer.body.append(f'<div class="formula">{drawn(node, "block")}</div>\n')
    raise SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer, which conf.py names."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
