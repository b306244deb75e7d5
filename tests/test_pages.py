"""Pages of the site: their code runs, in the folder of the page, and every public name has its entry."""

import importlib
import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("myst_nb", reason="the site needs the extra docs")

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if "_build" not in path.parts and "generated" not in path.parts
)
CELL = re.compile(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
MODULES = ("", ".cells", ".data", ".diagnostics", ".models", ".optim", ".time_layers", ".torch", ".training")


def code_of(path):
    """The code cells of a page as one program; options of cells begin with a colon."""
    cells = [found[2] for found in CELL.finditer(path.read_text(encoding="utf-8"))]
    return "\n".join(re.sub(r"^:[^\n]*\n", "", cell, flags=re.MULTILINE) for cell in cells)


RUNNING = [path for path in PAGES if code_of(path)]


@pytest.mark.parametrize("path", RUNNING, ids=[path.relative_to(DOCS).as_posix() for path in RUNNING])
def test_the_code_of_a_page_runs(path, monkeypatch):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(path.parent)
    monkeypatch.syspath_prepend(str(path.parent))
    names = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that a page shows beside ours
        exec(compile(code_of(path), str(path), "exec"), names)
    plt.close("all")
    assert len(names) > 1


def test_every_public_name_is_in_the_reference():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    listed = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    missing = []
    for module in MODULES:
        names = importlib.import_module(f"rnnfast{module}").__all__
        missing += [f"rnnfast{module}.{name}" for name in names if name not in listed]
    ready = importlib.import_module("rnnfast.cells")
    instances = {f"rnnfast.cells.{name}" for name in ready.__all__ if not callable(getattr(ready, name))}
    modules = {"rnnfast.cells", "rnnfast.optim", "rnnfast.time_layers.np"}
    assert set(missing) - instances - modules == set()


def test_no_line_of_a_page_is_longer_than_160_columns():
    wrong = []
    for path in [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        wrong += [
            f"{path.name}: {line[:60]}" for line in text.splitlines() if len(line) > 160 and line[0] != "|"
        ]
    assert wrong == []
