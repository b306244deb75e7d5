"""What an object does for others has a name without an underscore."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "rnnfast").rglob("*.py"))

NAMEDTUPLES = {"_asdict", "_fields", "_replace"}  # public in spite of their names
ALLOWED = {
    "rnnfast/engine/locks.py: turn._at_fork_reinit": "CPython names it so for locks",
    "rnnfast/cli/__init__.py: os._exit": "Python's name for an end without clean-up",
    "rnnfast/distributed/watchdog.py: os._exit": "Python's name for an end without clean-up",
    "rnnfast/torch/serving.py: module._flat_weights": "PyTorch's name for the parameters in order",
    "rnnfast/torch/serving.py: module._update_flat_weights": "the first call in each `forward` of PyTorch",
    "rnnfast/torch/dispatcher.py: _library._destroy": "PyTorch's name for the end of a registration",
    "rnnfast/torch/compiling.py: compiled._initialize": "PyTorch's name for what a pickle runs again",
    "rnnfast/torch/operators.py: module._flat_weights_names": "PyTorch's name for their names",
    "rnnfast/torch/accelerating.py: lstm._flat_weights": "PyTorch's name for the parameters in order",
    "rnnfast/torch/accelerating.py: policy._process_sequence": "sb3-contrib's name for what is replaced",
    "rnnfast/torch/layout.py: frames._FrameAction": "PyTorch's, as torch._C is",
    "rnnfast/torch/layout.py: frames._FrameExecStrategy": "PyTorch's, as torch._C is",
    "rnnfast/data/vocabulary.py: empty._split": "the tokenizer that `fit` hands over is learning",
}


def is_private(node):
    return isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")


def own_names(definition):
    """Names that a class defines, and those that its methods use of `self` and `cls`."""
    names = {n.name for n in ast.walk(definition) if isinstance(n, ast.FunctionDef)}
    names |= {n.id for n in ast.walk(definition) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(definition) if is_private(n) and is_own(n)}


def is_own(node):
    return ast.unparse(node.value) in ("self", "cls", "super()")


def reached_for(tree):
    """Underscore names of objects of other classes than the one whose method reaches for them."""
    allowed = set()
    for definition in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
        names = own_names(definition)
        allowed |= {n for n in ast.walk(definition) if is_private(n) and n.attr in names}
    found = [n for n in ast.walk(tree) if is_private(n) and not is_own(n) and n not in allowed]
    places = [ast.unparse(n) for n in found if n.attr not in NAMEDTUPLES]
    return [
        place for place in places if not place.startswith("torch.")
    ]  # PyTorch's, which has no others for it


def test_no_object_reaches_for_the_underscore_names_of_another_class():
    found = set()
    for path in LIBRARY:
        name = path.relative_to(ROOT).as_posix()
        found |= {f"{name}: {place}" for place in reached_for(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == set(ALLOWED)


def test_the_rule_sees_what_it_is_for():
    other = "class A:\n    def f(self, other):\n        return other._x, self._y, other.part._z\n"
    assert reached_for(ast.parse(other)) == ["other._x", "other.part._z"]
    own = "class A:\n    _x = 1\n    def f(self, other):\n        return other._x\n"
    assert reached_for(ast.parse(own)) == []
    outside = "def f(layer, pair):\n    return layer._x, pair._replace(x=1), layer.__dict__\n"
    assert reached_for(ast.parse(outside)) == ["layer._x"]
