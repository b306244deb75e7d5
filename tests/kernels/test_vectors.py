"""Code for other processors: multiply-adds are rounded once, and masks are for those that have them."""

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numba
import pytest
from helpers import compiled, needs_jit, target_without_avx512
from llvmlite import ir
from numba import types
from numba.core import cgutils
from rnnfast.kernels.codegen import simd
from rnnfast.kernels.codegen.formula import Lanes
from rnnfast.kernels.codegen.vectors import TARGET, Target
from rnnfast.kernels.product import tile

CORTEX_A76 = Target("aarch64-unknown-linux-gnu", "+neon,+fp-armv8")
IS_X86 = TARGET.triple.startswith(("x86_64", "i686"))
WITHOUT_AVX = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}


def code_bytes(machine, module):
    """Length of the machine code."""
    sections = llvm.ObjectFileRef.from_data(machine.emit_object(module)).sections()
    return sum(section.size() for section in sections if section.is_text())


@pytest.mark.parametrize(
    ("triple", "features", "name"),
    [
        ("x86_64-unknown-linux-gnu", "+avx,+avx2,+fma", "fma"),
        ("x86_64-pc-windows-msvc", "+avx,-fma", "fmuladd"),
        ("x86_64-unknown-linux-gnu", "+avx,+fma4", "fmuladd"),
        ("aarch64-unknown-linux-gnu", "+neon", "fma"),
        ("arm64-apple-darwin24.1.0", "", "fma"),
        ("riscv64-unknown-linux-gnu", "", "fmuladd"),
    ],
)
def test_a_multiply_add_is_fma_where_the_processor_has_one(triple, features, name):
    assert Target(triple, features).multiply_add == name


@pytest.mark.parametrize(
    ("features", "expected"),
    [("+sse4.2,-avx", False), ("+avx", True), ("+avx2,+fma", True), ("+neon", False), ("+neon,+sve", True)],
)
def test_masked_moves_take_avx_or_sve(features, expected):
    assert Target("", features).has_masked_moves is expected


def scalar_chain():
    """A function that adds a[k] b[k] to a number over k, with the formula `fma`."""
    module, pointer, count = ir.Module(), ir.FloatType().as_pointer(), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.FloatType(), [pointer, pointer, count]), "chain")
    a, b, depth = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    total = cgutils.alloca_once_value(builder, ir.FloatType()(0.0))
    with cgutils.for_range(builder, depth) as loop:
        places = (builder.gep(array, [loop.index]) for array in (a, b))
        factors = (Lanes(builder, builder.load(place)) for place in places)
        builder.store(simd.fma(*factors, Lanes(builder, builder.load(total))).value, total)
    builder.ret(builder.load(total))
    return module


@needs_jit
def test_a_scalar_sum_on_arm_is_rounded_once_a_step(monkeypatch):
    monkeypatch.setattr(simd, "TARGET", CORTEX_A76)
    machine, module = compiled(scalar_chain(), CORTEX_A76, "cortex-a76")
    assembly = machine.emit_assembly(module)
    assert "fmadd" in assembly
    assert "fmul" not in assembly


@needs_jit
@pytest.mark.parametrize("dtype", [types.float32, types.float64])
def test_a_tile_without_masked_moves_is_short(dtype):
    """A branch for each lane made it 82 KB of code."""
    module = ir.Module()
    tile._TileWriter(module, dtype, CORTEX_A76).define("tile")
    assert "llvm.masked" not in str(module)
    assert code_bytes(*compiled(module, CORTEX_A76, "cortex-a76")) < 20_000


@needs_jit
@pytest.mark.skipif(not IS_X86, reason="narrows an x86 processor")
@pytest.mark.parametrize("target", [target_without_avx512(), WITHOUT_AVX], ids=["AVX2", "no AVX"])
def test_vector_code_is_right_on_a_narrower_target(target):
    if target is None:
        pytest.skip("this processor has no AVX-512 to switch off")
    files = ["kernels/test_tile.py", "kernels/test_row.py", "cells/test_formula.py"]
    cache = Path(numba.config.CACHE_DIR) / target["NUMBA_CPU_NAME"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=Path(__file__).parents[1], env={**os.environ, **target, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
