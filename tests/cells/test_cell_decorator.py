"""`rnnfast.cell`: what it refuses, in one sentence with the line; functions from anywhere; shared code."""

import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import needs_jit
from rnnfast.kernels.recurrence.recurrence import time_loop

import rnnfast
from rnnfast import CellError, cells

NAMES = {**{name: getattr(cells, name) for name in cells.__all__}, "np": np, "cell": rnnfast.cell}


def defined(body, signature="a, h", options='states="h"', file="<cell of a notebook>", **names):
    """The cell of a source that no file holds; the function begins in line 3."""
    source = f"import math\n@cell({options})\ndef mine({signature}):\n" + textwrap.indent(body, "    ")
    names = {**NAMES, **names}
    exec(compile(source, file, "exec"), names)
    return names["mine"]


WRONG_STEPS = {
    "a branch": (
        "if a > 0:  # here\n    return a\nreturn h",
        "a branch on a value (if, and, or, while, max) cannot",
    ),
    "a branch on equality": (
        "if a == 0:  # here\n    return a\nreturn h",
        "cannot be compared with == or !=",
    ),
    "a loop": ("while h < 1:  # here\n    h = h + a\nreturn h", "a branch on a value"),
    "max": ("return max(a, h)  # here", "use where(condition, a, b)."),
    "a function of NumPy": (
        "return np.tanh(a)  # here",
        "tanh of NumPy is not known here; use those of rnnfast.cells.",
    ),
    "a function of math": (
        "return math.exp(a)  # here",
        "a function of numbers, but the step runs once, on symbols; use the functions of rnnfast.cells.",
    ),
    "an option of a function of NumPy": (
        "return np.add(a, h, where=False)  # here",
        "add of NumPy takes two operands here, got where as well; use the functions of rnnfast.cells.",
    ),
    "a method of a function of NumPy": (
        "return np.add.reduce(a)  # here",
        "add.reduce of NumPy is not known",
    ),
    "a count": (
        "for _ in range(int(a)):  # here\n    h = h + a\nreturn h",
        "cannot be a count or an index (int, round, range), since the step runs once, on symbols; use where(",
    ),
    "digits": ("print(f'{a:.3f}')  # here\nreturn a", "no digits for the format '.3f'"),
    "a recursion without end": (
        "def inside(x):\n    return inside(x) + 1  # here\nreturn inside(a)",
        "the step calls itself without end, or deeper than the",
    ),
    "a comparison as surrogate": ("return step(a, surrogate=lambda x: x > 0)  # here", "is no number"),
    "a surrogate that is none": ("return step(a, surrogate=0)  # here", "'int' object is not callable"),
    "an unknown name": ("return tahn(a)  # here", "name 'tahn' is not defined; a step may use arithmetic"),
    "an operator there is not": ("b2 = a % 2  # here\nreturn b2", "unsupported operand type(s) for %"),
    "a power": ("return a ** 0.5  # here", "others are exp(p * log(x))."),
    "an element": ("return a[0]  # here", "it has no elements and no length."),
    "an array": ("return a * np.ones(3)  # here", "must be a value of the step or a number, got ndarray."),
    "a comparison as a number": ("return a * (a > h)  # here", "a comparison is no number"),
    "division by zero": ("x = 1\nreturn a * (x / 0)  # here", "division by zero; a step may use arithmetic"),
    "a gate called": ("return a(h)  # here", "a value of the step is not callable; a step may use"),
    "a product of its own": ("return a.x + a.h  # here", "a value of the step has no attribute 'x'"),
    "both of two": ("return (a > 0) & (h > 0)  # here", "for &: a value of the step and a value of the step"),
    "a gate as condition": (
        "return where(a, a, h)  # here",
        "the condition of where must be a comparison such as a > 0, got a.",
    ),
    "a sum as condition": ("return where(a + h, a, h)  # here", "such as a > 0, got a + h."),
    "a condition of Python": ("return where(True, a, h)  # here", "such as a > 0, got True."),
    "an array as condition": ("return where(np.ones(3), a, h)  # here", "such as a > 0, got ndarray."),
    "too many values": (
        "a = 2 * a\nreturn a, h  # here",
        "the step returns 2 values; it must return the state h.",
    ),
    "no value for a state": (
        "return {}  # here",
        "the step returns no number for the state h: an operand must be a value of the step or a number",
    ),
    "a comparison for a state": (
        "a = 2 * a\nreturn a > h  # here",
        "the state h is a comparison; use where(2 * a > h, 1, 0).",
    ),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_what_a_step_cannot_say_is_one_sentence_with_its_line(name):
    body, message = WRONG_STEPS[name]
    line = 4 + next(i for i, text in enumerate(body.splitlines()) if "# here" in text)
    with pytest.raises(CellError) as error:
        defined(body)
    sentence = str(error.value)
    assert sentence.startswith(f"cell mine (<cell of a notebook>, line {line}): ")
    assert message in sentence
    assert "Node" not in sentence
    assert re.fullmatch(r"[^\n]*[^.]\.", sentence)


@pytest.mark.parametrize(
    ("body", "signature", "options", "message"),
    [
        ("return a", "a, h, c", 'states=("h", "c")', "returns 1 value; it must return the states h, c"),
        ("a = 2 * a", "a, h", 'states="h"', "the step returns nothing; it must return the state h"),
        ("pass", "a, h, c", 'states=("h", "c")', "the step returns nothing; it must return the states h, c"),
        ("return a", "a, h, k=unit(0.1)", 'states="h"',
         "the argument k has a default, so it must follow a *, as in def mine(..., *, k=...)"),
        ("return a", "a, *h", 'states="h"', "every argument of a step must be named, got *h"),
        ("return a", "a, h, **more", 'states="h"',
         "every argument of a step must be named, got *more"),
        ("return a", "a, h, *, k=0.1", 'states="h"',
         "the default of k must be a role such as rnnfast.unit(0.1), got 0.1"),
        ("return a", "a, h, *, k", 'states="h"',
         "the default of k must be a role such as rnnfast.unit(0.1), got none"),
        ("return a", "a, h", "states=()", 'each state once, as in @rnnfast.cell(states=("h",)), got ()'),
        ("return a", "a, h", 'states=("h", "h")', "states must name each state once, as in"),
        ("return a", "a, h", "states=1", "states must be a sequence of names, got 1"),
        ("return a", "a, h", "states=(1,)", "states must be a sequence of names, got (1,)"),
        ("return a", "a, h", 'states="c"', "at least one gate and then the states c, got (a, h)"),
        ("return h", "h", 'states="h"', "at least one gate and then the states h, got (h)"),
        ("return h", "h, a", 'states="h"', "at least one gate and then the states h, got (h, a)"),
        ("return Wx", "Wx, h", 'states="h"',
         "argument of a step can be called Wx, which is the name of a parameter of layers; choose another"),
        ("return a", "a, b", 'states="b"', "can be called b, which is the name of a parameter of layers"),
        ("return a", "a, out", 'states="out"', "called out, which is the name of an argument of layers"),
        ("return a", "a, h, *, reset=unit(1.0)", 'states="h"',
         "can be called reset, which is the name of an argument of layers"),
        ("return a", "a, h, *, words=unit(1.0)", 'states="h"',
         "can be called words, which is the name of the start of word vectors"),
        ("return a", "a, h", 'states="h", product="x"', "product must be 'h', 'diagonal' or None, got 'x'"),
        ("return a.x", "a, z, h", 'states="h", apart="a"',
         "apart must name the last gates in their order, got a of a, z"),
        ("return a", "z, a, h", 'states="h", again="g"',
         "again must name the last gates in their order, got g of z, a"),
        ("return a", "a, z, h", 'states="h", again=("z", "a")',
         "again must name the last gates in their order"),
        ("return a", "a, h", 'states="h", apart="a", product=None', "apart needs product='h'"),
        ("return a", "a, h", 'states="h", again="a", product="diagonal"', "again needs product='h'"),
        ("return a", "a, h", 'states="h", again="a", apart="a"', "a cell has only one of apart and again"),
        ("return a", "a, h", 'states="h", apart=3', "apart must be a sequence of names, got 3"),
        ("return a", "a, h", 'states="h", apart="a"',
         "the products of the gate a are apart; use a.x and a.h"),
        ("return a + 1", "a, h", 'states="h", apart="a"',
         "the products of the gate a are apart; use a.x and a.h"),
        ("return where(a, 1, 0)", "a, h", 'states="h", apart="a"',
         "the products of the gate a are apart; use a.x and a.h"),
        ("return tanh(a)", "a, h", 'states="h", apart="a"',
         "the products of the gate a are apart; use a.x and a.h"),
        ("return a + h", "a, h", 'states="h", again="a"',
         "waits for the operand of its product; use a(operand)"),
        ("return h", "a, h", 'states="h", again="a"',
         "the gates a must be called with one and the same operand"),
        ("return a(h) + a(2 * h)", "a, h", 'states="h", again="a"',
         "the gate a takes one operand, and was given two"),
        ("return a(h) + z(2 * h)", "a, z, h", 'states="h", again=("a", "z")',
         "with one and the same operand"),
        ("return a(h > 0)", "a, h", 'states="h", again="a"',
         "a comparison is no number: it can only be the condition of where"),
        ("return a(True)", "a, h", 'states="h", again="a"', "or a number, got bool"),
        ("return a(h) if a == h else h", "a, h", 'states="h", again="a"',
         "waits for the operand of its product; use a(operand)"),
        ("return a.x + len(a)", "a, h", 'states="h", apart="a"', "are apart; use a.x and a.h"),
        ("for _ in range(1501):\n    h = tanh(h + a)\nreturn h", "a, h", 'states="h"',
         "the step has 31,523 operations, where a function such as tanh counts as 20, and at most 10,000"),
        ("return a(z(h))", "z, a, h", 'states="h", again=("z", "a")', "with one and the same operand"),
        ("return a", "a, h", 'states="h", start={"w": 1}',
         "start has w, which is not a parameter; use Wh, Wx, b"),
        ("return a", "a, h", 'states="h", start=1.0', "start must be a dict, got float"),
    ],
)  # fmt: skip
def test_wrong_arguments_and_results_are_one_sentence(body, signature, options, message):
    with pytest.raises(CellError) as error:
        defined(body, signature, options)
    sentence = str(error.value)
    assert re.match(r"cell mine \(<cell of a notebook>, line [24]\): ", sentence)
    assert message in sentence
    assert re.fullmatch(r"[^\n]*[^.]\.", sentence)


def test_the_decorator_without_parentheses_says_what_it_needs():
    with pytest.raises(CellError, match=r"states must name each state once, as in @rnnfast.cell\(states="):

        @rnnfast.cell
        def mine(a, h):
            return a + h


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("if math.pi > 3:\n    return a, h\nreturn h, a", 2),  # which of the two is not known
        ("if math.pi > 3:\n    pass\nreturn (\n    a,\n    h,\n)", 6),
        ("def inside(x):\n    return x\nreturn inside(a), h", 6),
    ],
)
def test_a_wrong_number_of_results_is_placed_at_the_only_return(body, line):
    with pytest.raises(CellError, match=rf"line {line}\): the step returns 2 values"):
        defined(body)


@pytest.mark.parametrize("step", [abs, np.tanh, 3, "tanh"])
def test_a_step_must_be_a_function_written_in_python(step):
    with pytest.raises(CellError, match=r"^cell: a step must be a function written in Python, got \w+\.$"):
        rnnfast.cell(step, states="h")


def test_a_value_of_one_step_cannot_be_used_in_another():
    kept = []
    defined("kept.append(a)\nreturn a", kept=kept)
    with pytest.raises(CellError, match=r"line 4\): a value of one formula was used in another\.$"):
        defined("return a + kept[0]", kept=kept)


def test_an_error_of_the_users_own_is_left_alone():
    with pytest.raises(KeyError, match="alpha"):
        defined("return a * {}['alpha']")


def test_an_error_in_a_function_that_a_step_calls_names_its_line():
    source = "def inside(x):\n    return np.exp(x)\n\n\n"
    source += "@cell(states='h')\ndef mine(a, h):\n    y = inside(a)\n    return y\n"
    with pytest.raises(CellError, match=r"^cell mine \(<block>, line 7\): "):
        exec(compile(source, "<block>", "exec"), dict(NAMES))


def test_steps_may_calculate_with_numbers_and_be_methods_lambdas_or_closures():
    class Of:
        rate = 0.5

        def step(self, a, h):
            """One step."""
            return tanh_of(a) * self.rate * 1 + 0 * h + exp_of(-1) * 0

    tanh_of, exp_of = cells.tanh, cells.exp
    method = rnnfast.cell(Of().step, states="h")
    closure = rnnfast.cell(lambda a, h: 0.5 * 1.0 * tanh_of(a), states=["h"])
    assert (method.name, closure.name) == ("step", "<lambda>")
    assert method.__doc__ == "One step."
    assert closure.equations.after[0].op == "mul"


def test_a_chain_of_thousands_of_operations_is_a_cell():
    chain = defined("for _ in range(3000):\n    h = 0.999 * h + a\nreturn h")
    assert chain.describe().count("0.999") > 3000
    assert chain.fingerprint != cells.rnn.fingerprint


def test_a_cell_shows_its_gates_states_and_arguments():
    shown = defined("return h + k * a", "a, h, *, k=unit(0.5)")
    assert repr(shown) == "<cell mine(a, h, k)>"
    assert repr(shown.layer(2, 3)).startswith(
        "Recurrent(cell=<cell mine(a, h, k)>, input_size=2, hidden_size=3"
    )


MINE = """
{header}
@rnnfast.cell(states=("{h}", "{c}"))
def {name}({a}, {h}, {c}, *, {rate}=rnnfast.unit(0.25)):
    {c} = {rate} * {c} + (1 - {rate}) * sigmoid({a})
    return tanh({c}) * 0.875, {c}
"""
PROGRAM = """
layer = {name}.layer(3, 5, rng=np.random.default_rng(0))
xs = np.random.default_rng(1).standard_normal((2, 4, 3)).astype(np.float32)
hs = layer.forward(xs)
dxs = layer.backward(hs)
result = hs.tobytes() + dxs.tobytes() + layer.step(xs[:, 0]).tobytes()
loop = layer.loop
misses = [sum(one.stats.cache_misses.values()) for one in (loop.forward, loop.backward, loop.step)]
"""
HEADER = "import numpy as np, rnnfast\nfrom rnnfast.cells import sigmoid, tanh"


def test_equal_cells_share_their_code():
    one, other = ({}, {})
    exec(MINE.format(header=HEADER, name="mine", h="h", c="c", a="a", rate="alpha"), one)
    exec(MINE.format(header=HEADER, name="leaky", h="y", c="v", a="current", rate="decay"), other)
    assert one["mine"] != other["leaky"]
    assert time_loop(one["mine"].equations) is time_loop(other["leaky"].equations)


def test_functions_of_numpy_are_told_apart_from_its_numbers():
    half = np.float32(0.5)

    @rnnfast.cell(states=("h",))
    def scaled(a, h):
        return half * cells.tanh(a) + (1 - half) * h - half / (2 + h * h)

    assert 0 < scaled.check(rng=np.random.default_rng(0)) < 1e-8
    for function in (np.sin, np.tanh, np.mean, np.std, lambda a: np.dot(a, a), np.asarray):
        wrong = eval("lambda a, h: function(a)", {"function": function})
        with pytest.raises(rnnfast.CellError, match=r"use (those|the functions) of rnnfast\.cells"):
            rnnfast.cell(states=("h",))(wrong)


@needs_jit
def test_a_cell_of_a_script_or_a_notebook_is_found_in_the_disk_cache(tmp_path):
    """By what it says: the process that compiled it had other names for everything."""
    here = {}
    source = MINE.format(header=HEADER, name="mine", h="h", c="c", a="a", rate="alpha")
    exec(source + PROGRAM.format(name="mine"), here)
    there = MINE.format(header=HEADER, name="other", h="y", c="v", a="current", rate="decay")
    there += PROGRAM.format(name="other") + "print(result.hex(), misses)"
    script = tmp_path / "script.py"
    script.write_text(there, encoding="utf-8")
    notebook = f"exec(compile({there!r}, '<ipython-input-1>', 'exec'), {{}})"
    for arguments in ([str(script)], ["-c", notebook]):
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=os.environ.copy(), cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split(maxsplit=1) == [here["result"].hex(), "[0, 0, 0]\n"]
