"""Every example in the documentation runs: doctests of all modules, and Python blocks of Markdown files."""

import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import MODULES, needs_jit

from rnnfast import RNNLM, WordTokenizer, cells
from rnnfast.cells import _functions
from rnnfast.training import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
MISSING = tuple(
    f"rnnfast.{name}"
    for name in ("interop.torch", "sklearn", "torch")
    if importlib.util.find_spec(name.rpartition(".")[2]) is None
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def module_names():
    library = [p.relative_to(ROOT).with_suffix("").parts for p in (ROOT / "rnnfast").rglob("*.py")]
    kernels = [
        ("rnnfast", *p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "kernels").rglob("*.py")
    ]
    names = {".".join(part for part in parts if part != "__init__") for parts in library + kernels}
    return sorted(name for name in names if not name.endswith("__main__") and not name.startswith(MISSING))


def run(test, output):
    """Run one doctest; what went wrong is appended to `output`."""
    return doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=output.append)


@pytest.mark.parametrize("name", module_names())
def test_the_examples_of_a_module_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples that save files leave nothing behind
    output = []
    failed = [
        run(test, output).failed for test in doctest.DocTestFinder().find(importlib.import_module(name))
    ]
    assert sum(failed) == 0, "".join(output)


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("README.md", marks=needs_jit),  # it trains, which takes a minute in plain Python
        "docs/guides/command-line.md",
    ],
)
def test_the_python_blocks_of_a_page_run(name, tmp_path, monkeypatch):
    """Blocks of one page share their names, as a reader who types them in would; `>>>` lines are compared."""
    monkeypatch.chdir(tmp_path)
    tokenizer = WordTokenizer.fit("the value of a name")
    model = RNNLM(tokenizer.vocab_size, 4, 4, rng=np.random.default_rng(0))
    Checkpoint("runs/book", tokenizer=tokenizer)(model, {"epoch": 1})  # the run that a page reads
    blocks = python_blocks(ROOT / name)
    assert blocks
    names, output, failed = {}, [], 0
    for number, block in enumerate(blocks):
        if any(name in block for name in MISSING):
            continue
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, f"{name}[{number}]", name, 0)
            runner = doctest.DocTestRunner(optionflags=OPTIONS)
            failed += runner.run(test, out=output.append, clear_globs=False).failed
            names = test.globs
        else:
            exec(compile(block, f"{name}[{number}]", "exec"), names)
    assert failed == 0, "".join(output)


def test_the_layer_example_of_the_readme_has_about_ten_lines():
    [block] = [block for block in python_blocks(ROOT / "README.md") if "TimeLSTM" in block]
    assert sum(line.startswith((">>>", "...")) for line in block.splitlines()) <= 12


def test_the_guide_lists_each_ready_cell_and_each_function_of_a_step():
    text = (ROOT / "docs" / "guides" / "own-cell.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    ready = {name for name in cells.__all__ if isinstance(getattr(cells, name), cells.Cell)}
    assert len(ready) == len(cells.READY)
    assert (ready | set(_functions.__all__)) - named == set()


def test_the_contributing_page_names_each_folder_of_the_library():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "rnnfast").glob("*/__init__.py")}
    assert {name for name in folders if f"`{name}/`" not in text} == set()


def without_code(page):
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,3} +(.*?) *$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_local_link_of_a_page_leads_to_a_file_and_to_a_heading():
    made = {".venv", ".asv", "node_modules", "_build"}
    pages = [path for path in ROOT.rglob("*.md") if not made & set(path.parts)]
    wrong, checked = [], 0
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
            name, _, anchor = target.partition("#")
            if "://" in target:
                continue
            file = page.parent / name if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                wrong.append(f"{page.name}: {target}")
            checked += bool(anchor)
    assert wrong == []
    assert checked


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_example(module):
    found = importlib.import_module(f"rnnfast{module}")
    objects = {name: getattr(found, name) for name in found.__all__}
    made = {name: one for name, one in objects.items() if inspect.isclass(one) or inspect.isfunction(one)}
    assert made
    assert [name for name, one in made.items() if ">>>" not in (one.__doc__ or "")] == []
