"""Formulas as MathML, which browsers draw without JavaScript and without a network."""

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def visit_inline(writer: Any, node: Any) -> None:
    """Write a formula inside a sentence, in place of its source."""
    writer.body.append(convert(node.astext()))
    raise SkipNode


def visit_block(writer: Any, node: Any) -> None:
    """Write a formula on lines of its own, in place of its source."""
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>\n')
    raise SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer, which conf.py names."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
