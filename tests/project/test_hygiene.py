"""The rules of the house, read off the sources: a change that breaks one fails here and not in review."""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

import rnnfast

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "rnnfast").rglob("*.py"))
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "asv_benchmarks" / "benchmarks").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

SPEAKS_LLVM = {
    "_jit.py",
    "bfloat16.py",
    "denormals.py",
    "clock.py",
    "flags.py",
    "formula.py",
    "passes.py",
    "peak.py",
    "row.py",
    "simd.py",
    "team.py",
    "tile.py",
    "tile_edge.py",
    "tile_loop.py",
    "vectors.py",
}
# The decorators of _jit.py whose functions become machine code.
COMPILED = {"kernel", "kernel_of", "inner", "inline"}
ALLOCATING = {"arange", "array", "ascontiguousarray", "copy", "empty", "full", "ones", "zeros"}
ALLOCATING |= {f"{name}_like" for name in ("empty", "full", "ones", "zeros")} | {
    "concatenate",
    "dot",
    "outer",
    "stack",
}

# Forward kernels that have no backward, and why.
NO_BACKWARD = {
    "exp_forward": "its derivative is its value",
    "sigmoid_forward": "its derivative is y (1 - y), which cells write out",
    "tanh_forward": "its derivative is 1 - y^2, which cells write out",
    "normal_forward": "its draws are constants",
    "bernoulli_forward": "its draws are constants",
    "gemm_forward": "its gradients are products again",
    "pack_forward": "it moves elements and computes nothing",
}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def where(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def found(paths, is_wrong):
    """Places of the nodes for which `is_wrong` holds."""
    return [where(path, node) for path in paths for node in ast.walk(tree(path)) if is_wrong(node)]


def imported(node):
    """Names of the modules that an import statement names; relative ones begin with dots."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def imports_from(package):
    """A predicate of nodes: does it import `package` or something of it?"""
    return lambda node: any(name.split(".")[0] == package for name in imported(node))


def functions(path):
    return [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def decorators(function):
    plain = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return {d.id for d in plain if isinstance(d, ast.Name)}


def compiled_functions():
    return [(path, f) for path in KERNELS for f in functions(path) if decorators(f) & COMPILED]


def kernels():
    """The compiled functions that Python calls, by name."""
    return {f.name: f for path in KERNELS for f in functions(path) if decorators(f) & {"kernel", "kernel_of"}}


def test_only_jit_py_sets_compile_options():
    compilers = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil", "prange", "jit_module"}

    def compiles(node):
        name = (
            node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        )
        return name in compilers or (isinstance(node, ast.keyword) and node.arg in ("fastmath", "parallel"))

    assert found([p for p in KERNELS if p.name != "_jit.py"] + LIBRARY + BENCHMARKS, compiles) == []


def test_no_file_asks_for_fastmath():
    def asks(node):
        return "fastmath" in (getattr(node, "arg", None), getattr(node, "value", None))

    assert found(KERNELS + LIBRARY + BENCHMARKS, asks) == []


def test_only_the_files_of_vector_code_speak_llvm():
    others = [path for path in KERNELS if path.name not in SPEAKS_LLVM]
    assert found(others + LIBRARY + BENCHMARKS, imports_from("llvmlite")) == []


def test_nothing_imports_kernels_by_its_bare_name():
    """That would be a second copy of every kernel, and on PyPI the name belongs to another package."""
    assert found(KERNELS + LIBRARY + BENCHMARKS + TESTS, imports_from("kernels")) == []


def test_nothing_is_unpickled():
    """A pickle runs code when it is loaded. _jit.py may, for what it has written into its own cache, and
    interop/archives.py finds stand-ins of six names only."""
    modules = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

    def unpickles(node):
        if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] == ["dump"]:
            return False  # it only writes
        allows = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        return (allows and ast.unparse(node.value) != "False") or any(
            name.split(".")[0] in modules for name in imported(node)
        )

    allowed = ("_jit.py", "archives.py")
    assert found([p for p in KERNELS + LIBRARY if p.name not in allowed], unpickles) == []


def test_kernels_know_nothing_of_the_library_above_them():
    assert found(KERNELS, imports_from("rnnfast")) == []


def test_each_level_of_kernels_imports_only_the_levels_below_it():
    levels = ("_jit", "codegen", "team", "product", "cell", "recurrence", "elementwise", "losses")
    upward, between = [], 0
    for path in (path for path in KERNELS if path.parent.name in levels):
        for node in (node for node in ast.walk(tree(path)) if getattr(node, "level", 0) == 2):
            folder = (node.module or node.names[0].name).split(".")[0]
            between += 1
            if levels.index(folder) >= levels.index(path.parent.name):
                upward.append(where(path, node))
    assert upward == []
    assert between > 50


CORE = ("_check", "cells", "data", "engine", "files", "heads", "layers", "models", "optim", "training")
EXTRAS = ("bench", "book", "cli", "diagnostics", "distributed", "forecast", "interop", "sklearn", "torch")


def test_no_core_folder_imports_an_extra():
    """`training` imports `distributed` inside functions, where ranks are given."""
    folders = {path.parent.name for path in LIBRARY} - {"rnnfast"}
    assert folders == {*CORE, *EXTRAS}
    wrong = [
        where(path, node)
        for path in LIBRARY
        if path.parent.name in CORE
        for node in tree(path).body
        if any(
            name.split(".")[:1] == ["rnnfast"] and {*name.split(".")[1:2]} & {*EXTRAS}
            for name in imported(node)
        )
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", [*CORE, "forecast", "diagnostics", "interop", "book", "distributed"])
def test_each_folder_can_be_the_first_import(folder):
    done = subprocess.run(
        [sys.executable, "-c", f"import rnnfast.{folder}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_no_star_imports():
    def has_a_star(node):
        return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)

    assert found(KERNELS + LIBRARY + BENCHMARKS + TESTS, has_a_star) == []


def test_compiled_functions_never_raise_or_validate():
    wrong = [
        f"{where(path, node)} in {f.name}"
        for path, f in compiled_functions()
        for node in ast.walk(f)
        if isinstance(node, ast.Raise | ast.Assert | ast.Try)
    ]
    assert wrong == []


def test_compiled_functions_never_allocate():
    wrong = [
        f"{where(path, node)} in {f.name}"
        for path, f in compiled_functions()
        for node in ast.walk(f)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ALLOCATING
    ]
    assert wrong == []


def test_each_forward_kernel_has_its_backward():
    names = {f.name for _, f in compiled_functions()}
    forward = {name for name in names if name.endswith("_forward")} - set(NO_BACKWARD)
    assert forward, "no forward kernels found"
    assert {name.replace("_forward", "_backward") for name in forward} - names == set()
    assert set(NO_BACKWARD) - names == set(), "names of kernels that are gone"


def reference_names():
    """Names of the specification, lower case and without the words that kernels leave out."""
    return {re.sub("time|with", "", name.lower()) for name in vars(reference)}


@pytest.mark.parametrize("ending", ["_forward", "_update", "_loss"])
def test_each_kernel_that_computes_a_layer_has_its_reference_twin(ending):
    names = [name for name in kernels() if name.endswith(ending) and name not in NO_BACKWARD]
    assert names
    twins = {name: name.removesuffix("_forward").removesuffix("_update").replace("_", "") for name in names}
    assert [name for name, twin in twins.items() if twin not in reference_names()] == []


def test_each_kernel_docstring_names_every_argument():
    wrong = []
    for name, function in kernels().items():
        text = ast.get_docstring(function) or ""
        arguments = [a.arg for a in function.args.args]
        wrong += [
            f"{name}: {a}" for a in arguments if not re.search(rf"(?<![\w.]){re.escape(a)}(?!\w)", text)
        ]
    assert wrong == []


def named_in_benchmarks():
    """What of rnnfast the benchmarks name: `rnnfast.x`, `optim.x`, and what they import from its kernels."""
    names = set()
    for node in (n for p in BENCHMARKS if not p.name.startswith("baseline") for n in ast.walk(tree(p))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("rnnfast", "optim"):
            names.add(node.attr)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnnfast.kernels"):
            names |= {alias.name for alias in node.names}
    return names


def test_each_kernel_is_timed_by_its_name_or_through_its_layer():
    """Models do not count: one that could use a layer says nothing about the time of that layer."""
    folders = [ROOT / "rnnfast" / name for name in ("layers", "book", "optim")]
    places = [path for folder in folders for path in folder.glob("*.py")]
    places += [ROOT / "kernels" / "product" / "peak.py"]
    uses = {}
    for node in (node for path in places for node in tree(path).body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)]
            uses[node.name] = {getattr(n, "id", None) or n.attr for n in inside}
    reached, waiting = set(), named_in_benchmarks()
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= uses.get(name, set()) - reached
    assert "loop" in reached, "no layer calls a time loop"
    reached |= {name.removesuffix("_of") for name in reached}  # `x_of` makes the kernel x
    assert {name for name in kernels() if not name.startswith("cell_")} - reached == set()


def test_each_layer_and_each_optimizer_is_timed():
    layers = [
        name
        for name in rnnfast.__all__
        if {"layers", "book"} & {*getattr(rnnfast, name).__dict__.get("__module__", "").split(".")}
    ]
    optimizers = [name for name in rnnfast.optim.__all__ if inspect.isclass(getattr(rnnfast.optim, name))]
    assert len(layers) > 10
    assert len(optimizers) >= 7
    assert {*layers, *optimizers} - named_in_benchmarks() - {"Optimizer", "State"} == set()


def loops(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.For):
            yield node, node.iter
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            for generator in node.generators:
                yield node, generator.iter


def test_layers_and_models_have_no_loop_over_an_axis_of_an_array():
    """A loop over a range of an axis; ranges with a stride walk over blocks of work and are allowed."""
    axes = {"N", "T", "D", "H", "V", "batch", "steps", "depth", "width", "cols", "rows"}

    def names_an_axis(node):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "len":
            return isinstance(node.args[0], ast.Name)
        return getattr(node, "id", None) in axes or getattr(node, "attr", None) in ("shape", "size")

    def is_over_an_axis(iterable):
        nodes = list(ast.walk(iterable))
        ranges = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "range"]
        inside = [n for one in ranges if len(one.args) < 3 for n in ast.walk(one)]
        by_element = any(getattr(n, "attr", None) in ("ndindex", "nditer", "tolist") for n in nodes)
        return by_element or any(names_an_axis(n) for n in inside)

    places = [p for p in LIBRARY if p.parent.name in ("book", "layers", "models")]
    assert [where(p, node) for p in places for node, iterable in loops(p) if is_over_an_axis(iterable)] == []


def lines_run_in_library(call):
    """How many lines of rnnfast/ Python executes in a call."""
    folder, count = str(ROOT / "rnnfast"), 0
    installed = str(Path(rnnfast.__file__).parent)

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith((folder, installed)):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def layer_pass(name, N, T, size):
    """A call that runs a layer forward and backward."""
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((N, T, size)).astype(np.float32)
    ids = rng.integers(0, size, (N, T))
    W, b = np.eye(size, dtype=np.float32), np.zeros(size, np.float32)
    layer = {
        "TimeRNN": lambda: rnnfast.TimeRNN(W, W.copy(), b),
        "TimeEmbedding": lambda: rnnfast.TimeEmbedding(W),
        "TimeContextSum": lambda: rnnfast.TimeContextSum(W, 2),
        "TimeAffine": lambda: rnnfast.TimeAffine(W, b),
        "TimeDropout": lambda: rnnfast.TimeDropout(0.5, rng=rng),
        "TimeSoftmaxWithLoss": lambda: rnnfast.TimeSoftmaxWithLoss(),
        "TimeAffineSoftmaxWithLoss": lambda: rnnfast.TimeAffineSoftmaxWithLoss(W, b),
        "RNNLM": lambda: rnnfast.RNNLM(size + 100, size, size, rng=rng),  # not looked up
        "CBOWLM": lambda: rnnfast.CBOWLM(size, size, rng=rng),
    }[name]()

    def call():
        if name in ("RNNLM", "CBOWLM"):
            layer.forward(ids, ids)
            layer.backward()
        elif name.endswith("Loss"):
            layer.forward(xs, ids)
            layer.backward()
        else:
            layer.backward(
                np.ones_like(layer.forward(ids if name in ("TimeEmbedding", "TimeContextSum") else xs))
            )

    return call


@pytest.mark.parametrize(
    "name",
    [
        "CBOWLM",
        "RNNLM",
        "TimeAffine",
        "TimeAffineSoftmaxWithLoss",
        "TimeContextSum",
        "TimeDropout",
        "TimeEmbedding",
        "TimeRNN",
        "TimeSoftmaxWithLoss",
    ],
)
def test_the_python_of_a_layer_does_not_grow_with_batch_time_or_features(name):
    counts = []
    for N, T, size in ((2, 3, 4), (2, 13, 4), (12, 3, 4), (2, 3, 14)):
        call = layer_pass(name, N, T, size)
        call()  # compiles, and takes the branches of a first call
        counts.append(lines_run_in_library(call))
    assert counts[0] > 5
    assert max(counts) - min(counts) < 5, counts  # a branch may differ; a loop would add ten lines


def public_modules():
    folders = [p.parent.name for p in LIBRARY if p.name == "__init__.py"]
    left_out = ("_", *(name for name in ("sklearn", "torch") if not importlib.util.find_spec(name)))
    names = ["rnnfast", *[f"rnnfast.{name}" for name in folders[1:] if not name.startswith(left_out)]]
    return [module for name in names if hasattr(module := importlib.import_module(name), "__all__")]


def test_every_all_is_sorted_and_every_name_in_it_exists():
    def isort_order(name):
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    for module in public_modules():
        order = None if module is rnnfast else isort_order  # its names are those of the stub
        assert module.__all__ == sorted(set(module.__all__), key=order), module.__name__
        assert [name for name in module.__all__ if not hasattr(module, name)] == [], module.__name__


def public_callables():
    """(name, function or class) for the public names of the packages and the methods of their classes."""
    seen = {}
    for module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                for method, function in inspect.getmembers(value):
                    if not method.startswith("_") and "rnnfast" in (
                        getattr(function, "__module__", None) or ""
                    ):
                        seen[f"{name}.{method}"] = function
                    own = isinstance(function, property) and "rnnfast" in function.fget.__module__
                    if own and not method.startswith("_"):
                        seen[f"{name}.{method}"] = function.fget
            if inspect.isclass(value) or inspect.isfunction(value):
                seen[name] = value
    return sorted(seen.items())


def test_every_public_name_has_a_docstring():
    assert [name for name, value in public_callables() if not (inspect.getdoc(value) or "").strip()] == []


def test_public_names_that_take_or_give_arrays_say_their_shapes():
    """A shape in a docstring is a parenthesis of axes, such as (N, T, D), (tokens,) or (..., O)."""
    shape = re.compile(r"\((?:\.\.\.|[A-Z]\w*|\d+)(?:,| [+*] \d)[^()]*\)|\(\w+,\)")
    wrong = []
    for name, value in public_callables():
        if inspect.isclass(value):
            signature = inspect.signature(value.__init__) if "__init__" in vars(value) else None
        else:
            signature = inspect.signature(value)
        annotations = [] if signature is None else [p.annotation for p in signature.parameters.values()]
        if signature is not None and not inspect.isclass(value):
            annotations.append(signature.return_annotation)
        # Sequences of arrays (parameters, gradients) have as many shapes as arrays.
        arrays = [a for a in map(str, annotations) if re.fullmatch(r"np\.ndarray( \| None)?", a)]
        if arrays and not shape.search(inspect.getdoc(value) or ""):
            wrong.append(name)
    assert wrong == []


# Methods whose arguments are also the cell's states and given arrays; others are refused there.
NAMED_BY_THE_CELL = {"forward", "backward", "step", "set_state"}
NAMED_BY_TORCH = {"compile"}  # its options are those of torch.compile, which refuses others


def test_public_functions_name_their_arguments():
    """No **kwargs: a misspelt argument must be an error."""
    wrong = []
    for name, value in public_callables():
        if inspect.isclass(value) and (issubclass(value, Exception) or "__init__" not in value.__dict__):
            continue  # its arguments are those of the class it is derived from
        kinds = [p.kind for p in inspect.signature(value).parameters.values()]
        if (
            inspect.Parameter.VAR_KEYWORD in kinds
            and name.split(".")[-1] not in NAMED_BY_THE_CELL | NAMED_BY_TORCH
        ):
            wrong.append(name)
    assert wrong == []


def test_nothing_unfinished_is_left_in_the_sources():
    marks = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")
    wrong = [
        p.name for p in LIBRARY + KERNELS + BENCHMARKS + TESTS if marks.search(p.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_every_sub_package_is_listed_in_pyproject():
    """An unlisted one works in an editable install and is missing from the wheel; setup.py adds kernels/."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w.]+)"', re.search(r"^packages = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)[1])
    folders = [p.parent for p in LIBRARY if p.name == "__init__.py"]
    expected = [".".join(folder.relative_to(ROOT).parts) for folder in folders]
    assert sorted(listed) == sorted(expected)
    with_modules = {p.parent for p in LIBRARY}
    assert with_modules == set(folders), "a folder of modules without __init__.py"


def test_no_check_is_left_over():
    checks = [path for path in LIBRARY if path.parent.name == "_check"]
    made = {node.name for path in checks for node in tree(path).body if isinstance(node, ast.FunctionDef)}
    used = {
        getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))
        for path in LIBRARY
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Attribute, ast.Name, ast.alias))
    }
    assert len(made) > 50
    assert made - used == set()


def test_importing_rnnfast_is_light_and_compiles_nothing():
    code = """
import sys
import rnnfast

heavy = {"matplotlib", "mpi4py", "onnx", "pytest", "rich", "sklearn", "torch", "typer"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
for name, module in list(sys.modules.items()):
    if name.startswith("rnnfast"):
        for value in vars(module).values():
            assert not getattr(value, "signatures", None), value
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_tests_are_no_package():
    """With tests/__init__.py a bare `pytest` finds the source tree before an installed wheel."""
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_no_test_kills_its_own_process_to_interrupt_it():
    """On Windows os.kill ends a process, whatever the signal; signal.raise_signal does not."""

    def kills_itself(node):
        return isinstance(node, ast.Call) and ast.unparse(node).startswith("os.kill(os.getpid()")

    assert found(TESTS, kills_itself) == []


def test_every_test_asserts_something():
    words = ("assert", "raises", "check", "warns", "expect")
    wrong = [
        f"{where(path, f)} {f.name}"
        for path in TESTS
        for f in functions(path)
        if f.name.startswith("test_") and not any(word in ast.unparse(f) for word in words)
    ]
    assert wrong == []
