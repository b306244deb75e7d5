"""Every ready cell on the command line, and cells of one's own as module:name."""

import json
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import rnnfast_command
from helpers import needs_jit
from rnnfast.kernels.recurrence.recurrence import time_loop

import rnnfast
from rnnfast.cells import READY, tanh
from rnnfast.training import load_checkpoint

TEXT = "you say goodbye and i say hello . hello hello i do not know why you say goodbye\n" * 12
SMALL = ("--emsize", 4, "--nhid", 4, "--bptt", 5, "--batch-size", 2, "--epochs", 1, "--no-baseline")
MINE = '''
import rnnfast
from rnnfast.cells import sigmoid, tanh

@rnnfast.cell(states=("h",), title="my cell", forgets={"stay": "low"})
def mine(stay, new, h):
    """Half of a GRU."""
    stay = sigmoid(stay)
    return stay * h + (1 - stay) * tanh(new)

@rnnfast.cell(states=("h",))
def other(a, h):
    return tanh(a) - 0.375 * h

@rnnfast.cell(states=("h",))
def fed(a, h, *, drive=rnnfast.given()):
    return tanh(a + drive)

number = 3
'''


def in_a_process(folder, *arguments):
    """The same as a program of its own in a folder that is not on its path, as of an installed script."""
    code = "import sys; sys.path.remove(''); from rnnfast.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def assert_one_line(found, *words):
    code, out, err = found
    assert (code, out, err.count("\n")) == (2, "", 1), (out, err)
    assert err.startswith("rnnfast: "), err
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def place(tmp_path_factory, text):
    """A folder with a module of the user's and a run that was trained with the cell in it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "my_cells_of_this_test.py").write_text(MINE)
    told = ("train", text, *SMALL, "--cell", "my_cells_of_this_test:mine", "--save", "run")
    code, out, err = in_a_process(folder, *told)
    assert (code, err) == (0, "")
    assert "my cell, 1 x 4" in out
    assert "the my cell writes:" in out
    assert "generate run --cell my_cells_of_this_test:mine --prompt" in out
    return folder


@pytest.mark.parametrize("cell", ["leaky", "SLSTM"])
def test_every_ready_cell_trains_and_is_found_again(text, tmp_path, cell):
    code, out, err = rnnfast_command("train", text, *SMALL, "--cell", cell, "--save", tmp_path / "run")
    assert (code, err) == (0, "")
    ready = {one.name: one for one in READY}[cell.lower()]
    assert f"{ready.title}, 1 x 4" in out
    assert load_checkpoint(tmp_path / "run").model.config["cell"] == ready.name
    code, out, err = rnnfast_command("diagnose", tmp_path / "run", "--lags", 3)
    assert (code, err) == (0, "")
    assert "advice: " in out
    found = rnnfast_command("generate", tmp_path / "run", "--cell", "math:pi")
    assert_one_line(found, "--cell must be module:name of a cell, got 'math:pi' of type float.")


@needs_jit
def test_warmup_compiles_the_cells_it_is_told():
    @rnnfast.cell(states=("h",))
    def fresh(a, h):
        return tanh(a) - 0.25 * h

    rnnfast.warmup(np.float32, cells=[fresh])
    loop = time_loop(fresh.equations)
    for kernel in (loop.forward, loop.backward, loop.step):
        assert kernel.signatures


def test_help_lists_every_ready_cell():
    help_text = rnnfast_command("train", "--help")[1].replace("│", " ").replace("\n", " ")
    assert [cell.name for cell in READY if f" {cell.name}" not in help_text] == []


def test_a_cell_without_recurrent_weights_is_diagnosed_by_what_it_has(text, tmp_path):
    told = ("train", text, *SMALL, "--cell", "min_gru", "--save", tmp_path / "run")
    assert rnnfast_command(*told)[0] == 0
    code, out, _ = rnnfast_command("diagnose", tmp_path / "run", "--lags", 3, "--json")
    assert code == 0
    found = json.loads(out)
    assert "spectral_radius" not in found
    assert set(found["gradient_by_lag"]) == {"h", "finding"}
    assert "of the update gates (z)" in found["gate_saturation"]["finding"]


def test_a_run_with_a_cell_of_ones_own_is_used_where_its_module_is_named(place):
    cell = ("--cell", "my_cells_of_this_test:mine")
    for command in (
        ("evaluate", "run"),
        ("generate", "run", "--length", 5, "--seed", 1),
        ("predict", "run", "you say"),
        ("diagnose", "run", "--lags", 3),
    ):
        code, out, err = in_a_process(place, *command, *cell)
        assert (code, err) == (0, ""), command
        assert out
        found = in_a_process(place, *command)
        assert_one_line(found, "run: the cell 'mine' of this run is one of your own; give --cell")


def test_a_run_is_not_read_with_another_cell(place):
    told = "the cell 'mine' of this run has other equations than --cell my_cells_of_this_test:other"
    for command in (("evaluate", "run"), ("generate", "run"), ("predict", "run", "you"), ("diagnose", "run")):
        assert_one_line(in_a_process(place, *command, "--cell", "my_cells_of_this_test:other"), told)
    again = ("train", "--resume", "run", "--epochs", 3, "--cell")
    found = in_a_process(place, *again, "my_cells_of_this_test:other")
    assert_one_line(found, "--cell", "my_cells_of_this_test:mine", "my_cells_of_this_test:other")


def test_a_run_with_a_cell_of_ones_own_goes_on_where_its_module_is_named(place):
    again = ("train", "--resume", "run", "--epochs", 2)
    found = in_a_process(place, *again)
    assert_one_line(found, "give --cell my_cells_of_this_test:mine, which imports it")
    code, out, err = in_a_process(place, *again, "--cell", "my_cells_of_this_test:mine")
    assert (code, err) == (0, "")
    assert "my cell: continues after" in out


def test_a_cell_whose_equations_have_changed_is_said_in_one_line(place, tmp_path):
    (tmp_path / "my_cells_of_this_test.py").write_text(MINE.replace("* tanh(new)", "* sigmoid(new)"))
    found = in_a_process(tmp_path, "evaluate", place / "run", "--cell", "my_cells_of_this_test:mine")
    told = "the cell 'mine' of this run has other equations than --cell my_cells_of_this_test:mine"
    assert_one_line(found, told)
    again = ("train", "--resume", place / "run", "--epochs", 9, "--cell", "my_cells_of_this_test:mine")
    assert_one_line(in_a_process(tmp_path, *again), told)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("no_such_module:mine", "ModuleNotFoundError: No module named 'no_such_module'."),
        (
            "more_cells_of_this_test:yours",
            "AttributeError: module 'more_cells_of_this_test' has no",
        ),
        ("more_cells_of_this_test:number", "got 'more_cells_of_this_test:number' of type int."),
        ("broken_cells_of_this_test:mine", "SyntaxError: "),
        ("more_cells_of_this_test:", "AttributeError"),
        (":mine", "ValueError"),
        ("more_cells_of_this_test", "--cell must be one of rnn, relu, "),
        ("more_cells_of_this_test:fed", "takes the given array drive"),
    ],
)
def test_what_is_no_cell_is_refused_in_one_line(text, tmp_path, monkeypatch, cell, words):
    (tmp_path / "more_cells_of_this_test.py").write_text(MINE)
    (tmp_path / "broken_cells_of_this_test.py").write_text("def mine(:\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert_one_line(rnnfast_command("train", text, "--cell", cell, "--save", "run"), words)
    assert sys.path == path
    assert not (tmp_path / "run").exists()


def test_the_option_is_refused_where_a_run_needs_none(text, tmp_path, monkeypatch):
    (tmp_path / "more_cells_of_this_test.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    assert rnnfast_command("train", text, *SMALL, "--save", "run")[0] == 0
    found = rnnfast_command("evaluate", "run", "--cell", "more_cells_of_this_test:mine")
    assert_one_line(found, "--cell has no effect on a run with a ready cell; leave it out.")
    found = rnnfast_command("evaluate", "run", "--cell", "rnn")
    assert_one_line(found, "--cell must be module:name of a cell of your own, got 'rnn'.")
