"""From an ONNX file to a program: nodes of constants are computed once, recurrent nodes become layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast.interop.onnx_operators import OPERATORS
from rnnfast.interop.onnx_program import (
    LARGEST_NUMBER,
    WRONG,
    Arrays,
    NodeFailed,
    Program,
    Step,
    TooLarge,
    computed,
    named,
)
from rnnfast.interop.onnx_reading import RECURRENT, Body, File, Node
from rnnfast.interop.onnx_recurrent import WEIGHTS, Shared
from rnnfast.interop.onnx_shapes import SEQUENCES

# What folding may add to the size of the file: bytes of results, and elements read and written.
_FOLDED_BYTES, _FOLDED_WORK = 1 << 20, 1 << 23
_WORK_PER_BYTE = 16
# Operators that compute graphs inside them, and the attributes that hold these.
_BODIES = {"If": ("then_branch", "else_branch"), "Scan": ("body",)}


class Budget:
    """What folding may still hold in bytes, and read and write in elements."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes + _FOLDED_BYTES
        self.work = nbytes * _WORK_PER_BYTE + _FOLDED_WORK


@np.errstate(all="ignore")  # constants may be NaN or infinite
def compiled(file: File) -> Program:
    """The program of a file, with its layers; ValueError if the graph is wrong."""
    program = _program(file.body, file.opset, set(), {}, Budget(file.nbytes))
    if file.metadata:  # its model is read from its arrays by name, but layers have those of their nodes
        program.kept = file.body.constants.keys() - _weights(program)
    file.body.nodes.clear()
    file.body.constants.clear()
    # What was folded gives its memory back before there are layers.
    program.drop_constants()
    _release(program, file.nbytes // 2)
    program.make_layers({}, Shared(file.nbytes + _FOLDED_BYTES))
    program.drop_constants()
    program.finish()
    return program


def _weights(program: Program) -> set[str]:
    """The names of the arrays of recurrent nodes."""
    nodes = [step.node for step in program.steps if step.node.op in RECURRENT]
    return {node.inputs[place] for node in nodes for place in WEIGHTS.values() if place < len(node.inputs)}


def _release(program: Program, most: int) -> None:
    """Copy the constants that share the file's memory if they take no more than `most` bytes."""
    sharing = [
        (one.constants, name, array)
        for one in program.nested()
        for name, array in one.constants.items()
        if _shares_file(array)
    ]
    if sum(array.nbytes for _, _, array in sharing) <= most:
        for constants, name, array in sharing:
            constants[name] = array.copy()


def _shares_file(array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base is not None


def refusals(program: Program) -> str:
    """Everything in the program that cannot run, in one sentence; empty if it runs."""
    unknown: dict[str, list[str]] = {}
    for one in program.nested():
        for step in one.steps:
            if step.node.op not in (*OPERATORS, *RECURRENT, *_BODIES):
                unknown.setdefault(step.node.op, []).append(repr(step.node.name))
    parts = [f"{op} (node {', '.join(names)})" for op, names in sorted(unknown.items())]
    told = [f"it has operators that are not served: {', '.join(parts)}"] if parts else []
    return "; ".join([*told, *(text for one in program.nested() for text in one.refused)])


def _program(body: Body, opset: int, outer: set[str], outer_constants: Arrays, budget: Budget) -> Program:
    """The steps of a graph in the scope of the names outside it; constant nodes are computed here."""
    inputs = [value.name for value in body.inputs]
    program = Program(inputs, [value.name for value in body.outputs], opset)
    known = {*outer, *body.constants}
    for name in inputs:
        _new(name, known, "an input")
    constants = {**outer_constants, **body.constants}
    for array in body.constants.values():
        if not array.size and math.prod(max(1, length) for length in array.shape) > budget.nbytes:
            raise ValueError("a constant without values has an impossible shape")
    program.constants.update(body.constants)
    program.held.update((name, a.shape) for name, a in body.constants.items() if a.dtype.kind == "f")
    for node in body.nodes:
        for name in node.inputs:
            if name and name not in known:
                raise ValueError(f"the node {node.name!r} ({node.op}) reads {name!r}, which nothing has made")
        results = _folded(node, constants, opset, budget)
        for name in node.outputs:
            if name:
                _new(name, known, f"the node {node.name!r}")
        if results is not None:
            made = named(node, results)
            constants.update(made)
            program.constants.update(made)
            if node.inputs:
                program.origins.update(dict.fromkeys(made, node.inputs))
            else:
                program.held.update((name, a.shape) for name, a in made.items() if a.dtype.kind == "f")
            continue
        if node.op == "Scan" and opset < 9:
            raise ValueError(f"the node {node.name!r} is a Scan of version 8; 9 and later are served")
        bodies = {
            name: _program(_body_of(node, name), opset, known - set(node.outputs), constants, budget)
            for name in _BODIES.get(node.op, ())
        }
        program.steps.append(Step(node, bodies))
    missing = [name for name in program.outputs if name not in known]
    if missing or not program.outputs:
        raise ValueError(f"nothing makes its outputs {', '.join(map(repr, missing))}")
    return program


def _new(name: str, known: set[str], what: str) -> None:
    if not name or name in known:
        raise ValueError(f"{what} makes {name!r}, which exists already" if name else f"{what} has no name")
    known.add(name)


def _body_of(node: Node, name: str) -> Body:
    body = node.attributes.get(name)
    if not isinstance(body, Body):
        raise ValueError(f"the node {node.name!r} ({node.op}) has no {name}")
    return body


def _folded(node: Node, constants: Arrays, opset: int, budget: Budget) -> list[np.ndarray] | None:
    """The results of a node whose inputs are all constants; None if it is to run later."""
    if (
        node.op not in OPERATORS
        or node.op in SEQUENCES
        or not all(name in constants for name in node.inputs if name)
    ):
        return None
    inputs = [constants[name] if name else None for name in node.inputs]
    work = sum(array.size for array in inputs if array is not None) + 1
    if node.op in ("MatMul", "Gemm", "Conv"):
        work *= constants[node.inputs[0]].size
    if work > budget.work:
        return None
    budget.work -= work
    try:
        results = computed(node, inputs, opset, min(budget.nbytes, LARGEST_NUMBER * budget.work))
    except TooLarge:
        return None
    except WRONG as error:
        raise NodeFailed(node, error) from None
    for array in results:
        budget.work -= array.size
        if inputs and not any(np.may_share_memory(array, one) for one in inputs if one is not None):
            budget.nbytes -= array.nbytes
    return results
