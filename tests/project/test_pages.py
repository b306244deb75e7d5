"""Pages of the site: which of them run, and that every public name has its entry; the build runs them."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
from helpers import MODULES

from rnnfast.cells import Cell
from rnnfast.heads import Head

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if "_build" not in path.parts and "generated" not in path.parts
)
OTHER_PAGES = [*ROOT.glob("*.md"), *(ROOT / name / "README.md" for name in ("kernels", "asv_benchmarks"))]
CELL = re.compile(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)


def read(path):
    return path.read_text(encoding="utf-8")


def code_of(path):
    """The code cells of a page as one program; options of cells begin with a colon."""
    cells = [found[2] for found in CELL.finditer(read(path))]
    return "\n".join(re.sub(r"^:[^\n]*\n", "", cell, flags=re.MULTILINE) for cell in cells)


RUNNING = [path for path in PAGES if code_of(path)]


def test_the_pages_with_code_are_those_that_the_site_runs():
    assert [path for path in PAGES if read(path).startswith("---\nfile_format: mystnb\n")] == RUNNING
    assert {path.parent.name for path in RUNNING} >= {"docs", "gallery", "guides", "reference", "story"}


def listed_names():
    """(module, name) of each entry in the reference."""
    found = []
    for path in (DOCS / "reference").glob("*.md"):
        module = None
        for line in read(path).splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
            elif re.fullmatch(r"   \w+", line):
                found.append((module, line.strip()))
    return found


def test_every_public_name_is_in_the_reference():
    """By its own module, or as the same object in another one."""
    modules = {f"rnnfast{name}": importlib.import_module(f"rnnfast{name}") for name in MODULES}
    listed = [(module, name) for module, name in listed_names() if module in modules]
    assert [entry for entry in listed if entry[1] not in modules[entry[0]].__all__] == []
    entries = {id(getattr(modules[module], name)) for module, name in listed}
    missing = []
    for module, found in modules.items():
        for name in found.__all__:
            value = getattr(found, name)
            if (
                id(value) not in entries
                and not inspect.ismodule(value)
                and not isinstance(value, Cell | Head)
            ):
                missing.append(f"{module}.{name}")
    assert set(missing) == {"rnnfast.cells.READY"}  # described in a sentence of its page


def test_no_line_of_a_page_is_longer_than_160_columns():
    wrong = []
    for path in [*PAGES, *OTHER_PAGES]:
        text = re.sub(r"^```.*?^```", "", read(path), flags=re.MULTILINE | re.DOTALL)
        wrong += [
            f"{path.name}: {line[:60]}" for line in text.splitlines() if len(line) > 160 and line[0] != "|"
        ]
    assert wrong == []


def test_the_readme_has_at_most_150_lines():
    assert len(read(ROOT / "README.md").splitlines()) <= 150


@pytest.fixture
def mathml(monkeypatch):
    pytest.importorskip("latex2mathml", reason="formulas need the extra docs")
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    yield importlib.import_module("mathml")
    del sys.modules["mathml"]


def test_a_formula_that_cannot_be_drawn_is_an_error(mathml):
    from docutils.nodes import math, math_block
    from sphinx.errors import ExtensionError

    assert "<mfrac>" in mathml.drawn(math("", r"\frac{a}{b} < \{c\}"), "inline")
    for source in (r"\unknown x", r"\begin{aligned} a &= b \end{aligned}"):
        with pytest.raises(ExtensionError, match="does not know a command"):
            mathml.drawn(math("", source), "inline")
    with pytest.raises(ExtensionError, match="no labels"):
        mathml.drawn(math_block("", "a = b", label="equation"), "block")
