"""Elementwise formulas, written once in Python: traced into vector IR, lowered as scalars, or run by NumPy.

A formula is a function of floats without loops and branches. With NumPy arrays or numbers it computes; with
`Lanes` it writes instructions; in a kernel, with numbers, it is compiled inline. `map_row` compiles it for
whole rows: all work on a unit happens in registers, between one load and one store of each operand. (LLVM's
own vectorizer checks pairs of arrays for overlap and gives up beyond a few, so that a cell was half a dozen
loops: 2.2 ns forward and backward for a unit of an LSTM on Zen 5; 1.2 ns this way.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from .._jit import intrinsic, jit_is_disabled
from .vectors import VectorWriter

_I64 = ir.IntType(64)

_numbers: dict[Callable, int] = {}  # numbers of all formulas, since names are not unique


class Lanes:
    """A number or a vector in a formula that is being compiled; arithmetic writes instructions."""

    __array_ufunc__ = None  # NumPy's numbers leave arithmetic to this class

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    @property
    def lanes(self) -> int:
        """The number of lanes; 0 for a scalar."""
        return self.value.type.count if isinstance(self.value.type, ir.VectorType) else 0

    @property
    def dtype(self) -> np.dtype:
        kind = self.value.type.element if self.lanes else self.value.type
        return np.dtype(np.float32 if isinstance(kind, ir.FloatType) else np.float64)

    def wrap(self, value: ir.Value) -> Lanes:
        """The result of an instruction."""
        return Lanes(self.builder, value)

    def operand(self, other: Any) -> ir.Value:
        """The value of another operand; a number becomes a constant in each lane."""
        if isinstance(other, Lanes):
            return other.value
        kind = self.value.type
        return ir.Constant(kind, [float(other)] * kind.count if self.lanes else float(other))

    def call(self, name: str, *others: Any) -> Lanes:
        """LLVM's function `name` of this and others, declared by its full name (`llvm.fmuladd.v16f32`), since
        the short form cannot name vector types."""
        arguments = [self.value, *map(self.operand, others)]
        width = f"v{self.lanes}" if self.lanes else ""
        full_name = f"llvm.{name}.{width}f{8 * self.dtype.itemsize}"
        kind = ir.FunctionType(self.value.type, [self.value.type] * len(arguments))
        function = self.builder.module.declare_intrinsic(full_name, (), kind)
        return self.wrap(self.builder.call(function, arguments))

    def __add__(self, other: Any) -> Lanes:
        return self.wrap(self.builder.fadd(self.value, self.operand(other)))

    def __sub__(self, other: Any) -> Lanes:
        return self.wrap(self.builder.fsub(self.value, self.operand(other)))

    def __rsub__(self, other: Any) -> Lanes:
        return self.wrap(self.builder.fsub(self.operand(other), self.value))

    def __mul__(self, other: Any) -> Lanes:
        return self.wrap(self.builder.fmul(self.value, self.operand(other)))

    def __truediv__(self, other: Any) -> Lanes:
        return self.wrap(self.builder.fdiv(self.value, self.operand(other)))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Lanes:
        return self.wrap(self.builder.fneg(self.value))

    def __abs__(self) -> Lanes:
        return self.call("fabs")

    def _compare(self, relation: str, other: Any) -> Condition:
        return Condition(self, self.builder.fcmp_ordered(relation, self.value, self.operand(other)))

    def __lt__(self, other: Any) -> Condition:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Condition:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Condition:
        return self._compare(">", other)


class Condition(NamedTuple):
    """The result of a comparison of `lanes`; false for NaN."""

    lanes: Lanes
    value: ir.Value

    def select(self, chosen: Any, other: Any) -> Lanes:
        """`chosen` where it holds, else `other`."""
        values = self.lanes.operand(chosen), self.lanes.operand(other)
        return self.lanes.wrap(self.lanes.builder.select(self.value, *values))


def formula(function: Callable) -> Callable:
    """Let kernels call a formula with floats of one type; it is compiled inline."""
    if jit_is_disabled():
        return function
    _numbers[function] = len(_numbers)

    class Typing(AbstractTemplate):
        key = function

        def generic(self, args: tuple, kws: dict) -> Any:
            if kws or not args or args[0] not in (types.float32, types.float64):
                return None
            return signature(args[0], *args) if set(args) == {args[0]} else None

    def lower(context: Any, builder: ir.IRBuilder, signature: Any, arguments: tuple) -> ir.Value:
        return function(*(Lanes(builder, value) for value in arguments)).value

    infer_global(function, types.Function(Typing))
    lower_builtin(function, *[types.Float] * len(inspect.signature(function).parameters))(lower)
    return function


def by_dtype(single: Callable, double: Callable) -> Callable:
    """A formula of one operand: `single` on float32, `double` on float64."""

    @formula
    def choose(x):
        return (double if x.dtype == np.float64 else single)(x)

    return choose


class FormulaWriter(VectorWriter):
    """Writes a formula over rows, as a function, into an LLVM module."""

    def function(self, key: Any, formula: Callable, reads: int, writes: int) -> ir.Function:
        """The function of a count, the rows to read and the rows to write.

        `key` identifies the formula.
        """
        name = f"rnnfast_row_{key}_{8 * self.itemsize}_{reads}_{writes}"
        if name in self.module.globals:
            return self.module.globals[name]
        pointers = [self.scalar.as_pointer()] * (reads + writes)
        function = self.new_function(name, [_I64, *pointers], "optsize")
        function.linkage = "internal"
        self._write(function, formula, reads)
        return function

    def _write(self, function: ir.Function, formula: Callable, reads: int) -> None:
        """Write a loop over whole vectors, then the remaining elements with a mask or one by one."""
        count, *rows = function.args
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        edge, done = (function.append_basic_block(label) for label in ("edge", "done"))
        count = builder.select(builder.icmp_signed(">", count, _I64(0)), count, _I64(0))
        whole = builder.and_(count, _I64(-self.lanes))
        self._write_loop(builder, formula, rows, reads, _I64(0), whole, edge)
        builder.position_at_end(edge)
        if self.target.has_masked_moves:
            left = builder.sub(count, whole)
            with builder.if_then(builder.icmp_signed(">", left, _I64(0))):
                inside = self.lanes_before(builder, left)
                self._apply(builder, formula, rows, reads, whole, inside)
            builder.branch(done)
        else:
            one_by_one = FormulaWriter(self.module, self.dtype, self.target, lanes=1)
            one_by_one._write_loop(builder, formula, rows, reads, whole, count, done)
        builder.position_at_end(done)
        builder.ret_void()

    def _write_loop(
        self, builder: ir.IRBuilder, formula: Callable, rows: list, reads: int,
        first: ir.Value, last: ir.Value, after: ir.Block,
    ) -> None:  # fmt: skip
        """Write the formula for every vector in [first, last), then a jump to `after`."""
        before, loop = builder.block, builder.append_basic_block("loop")
        builder.cbranch(builder.icmp_signed(">", last, first), loop, after)
        builder.position_at_end(loop)
        j = builder.phi(_I64)
        self._apply(builder, formula, rows, reads, j, None)
        following = builder.add(j, _I64(self.lanes))
        j.add_incoming(first, before)
        j.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, last), loop, after)

    def _apply(
        self, builder: ir.IRBuilder, formula: Callable, rows: list, reads: int, j: ir.Value, inside: Any
    ) -> None:
        """Write the formula for one place of all rows."""
        places = [
            builder.bitcast(builder.gep(row, [j], inbounds=True), self.vector.as_pointer()) for row in rows
        ]
        results = formula(*(Lanes(builder, self.load(builder, place, inside)) for place in places[:reads]))
        results = results if isinstance(results, tuple) else (results,)
        for place, result in zip(places[reads:], results, strict=True):
            self.store(builder, result.value, place, inside)


def _map_row_twin(formula, count, reads, writes):
    results = formula(*(array.reshape(-1)[first : first + count] for array, first in reads))
    results = results if isinstance(results, tuple) else (results,)
    for (array, first), result in zip(writes, results, strict=True):
        array.reshape(-1)[first : first + count] = result


@intrinsic(_map_row_twin)
def map_row(typing_context, formula, count, reads, writes):
    """writes = formula(*reads) over rows of `count` elements.

    formula         a `formula` with one result for each row of `writes`
    reads, writes   tuples of (array, first): contiguous arrays, and the position of the row in their memory;
                    a row may be both read and written, rows do not overlap otherwise
    """
    arrays = [pair[0] for pair in (*reads, *writes)]
    if len({array.dtype for array in arrays}) != 1 or {array.layout for array in arrays} != {"C"}:
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        writer = FormulaWriter(builder.module, arrays[0].dtype)
        formula = signature.args[0].typing_key
        function = writer.function(_numbers[formula], formula, len(reads), len(writes))
        places = []
        for kinds, group in zip(signature.args[2:], arguments[2:], strict=True):
            for index, kind in enumerate(kinds):
                pair = builder.extract_value(group, index)
                array, first = (builder.extract_value(pair, entry) for entry in range(2))
                data = context.make_array(kind[0])(context, builder, array).data
                places.append(builder.gep(data, [first]))
        builder.call(function, [arguments[1], *places])
        return context.get_dummy_value()

    pairs = [
        types.Tuple([types.Tuple([pair[0], types.int64]) for pair in group]) for group in (reads, writes)
    ]
    return types.void(formula, types.int64, *pairs), codegen
