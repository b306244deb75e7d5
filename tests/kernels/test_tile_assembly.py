"""The tile's machine code for processors that are not at hand: its instructions, its spills, its speed."""

import re
import shutil
import subprocess
from typing import NamedTuple

import pytest
from helpers import compiled, needs_jit
from llvmlite import ir
from numba import types
from rnnfast.kernels.codegen.vectors import Target
from rnnfast.kernels.product import tile

NEON = Target("aarch64-unknown-linux-gnu", "+neon,+fp-armv8")
WHOLE = 8 * 2  # multiply-adds of one k in the largest tile on ARM: 8 rows of two vectors

AVX2 = Target("x86_64-unknown-linux-gnu", "+avx,+avx2,+fma")
MULTIPLY_ADD = "fmla|vfmadd"

# Vector multiply-adds that begin in a cycle, as LLVM models these processors.
PER_CYCLE = {"neoverse-n1": 2, "neoverse-v1": 4, "neoverse-v2": 4, "apple-m1": 3}
# Older versions model most of these processors as a Cortex-A57.
MODEL = next(filter(None, (shutil.which(f"llvm-mca-{version}") for version in range(30, 17, -1))), None)

needs_model = pytest.mark.skipif(MODEL is None, reason="needs llvm-mca of LLVM 18 or later")


class Loop(NamedTuple):
    """The instructions of a loop."""

    lines: list[str]

    def count(self, pattern=MULTIPLY_ADD):
        return sum(bool(re.search(pattern, line)) for line in self.lines)


def loops_of(dtype, target, cpu):
    """The innermost loops of the tile that multiply."""
    module = ir.Module()
    tile._TileWriter(module, dtype, target).define("tile")
    machine, optimized = compiled(module, target, cpu)
    blocks = re.split(r"^(\.LBB\d+_\d+):", machine.emit_assembly(optimized), flags=re.MULTILINE)
    for label, text in zip(blocks[1::2], blocks[2::2], strict=True):
        lines = [line.strip() for line in text.splitlines() if re.match(r"\t[a-z]", line)]
        back = [n for n, line in enumerate(lines) if line.endswith(label)]
        loop = Loop([line.replace(label, "loop") for line in lines[: back[0] + 1]] if back else [])
        if loop.count():
            yield loop


def whole_loops(cpu):
    """The loops of the largest tile in float32 on ARM that take four k a round."""
    return [loop for loop in loops_of(types.float32, NEON, cpu) if loop.count() == 4 * WHOLE]


def share_of_peak(loop, architecture, cpu, per_cycle):
    """What llvm-mca expects of a loop."""
    rounds = 200
    code = "\n".join(["loop:", *(re.sub("//.*|# .*", "", line) for line in loop.lines)])
    command = [MODEL, f"-mtriple={architecture}", f"-mcpu={cpu}", f"-iterations={rounds}"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=True)
    cycles = int(re.search(r"Total Cycles: +(\d+)", done.stdout)[1])
    return rounds * loop.count() / cycles / per_cycle


@needs_jit
@pytest.mark.parametrize("dtype", [types.float32, types.float64])
@pytest.mark.parametrize("cpu", PER_CYCLE)
def test_no_loop_on_arm_keeps_sums_on_the_stack(dtype, cpu):
    loops = list(loops_of(dtype, NEON, cpu))
    assert loops
    assert not any(loop.count(r"\[sp") for loop in loops)


@needs_jit
@pytest.mark.parametrize("cpu", PER_CYCLE)
def test_arm_multiplies_by_elements_of_vectors(cpu):
    """A is read along k by one of these loops, along its rows by the other."""
    along_k, along_rows = sorted(whole_loops(cpu), key=lambda loop: len(loop.lines))
    for loop in along_k, along_rows:
        assert loop.count(r"fmla.*\[\d\]$") == loop.count()
        assert not loop.count("dup|ld1r")
    assert len(along_k.lines) <= 1.3 * along_k.count()
    assert len(along_rows.lines) <= 1.5 * along_rows.count()


@needs_jit
def test_the_largest_tile_of_avx2_spares_instructions_and_registers():
    loops = list(loops_of(types.float32, AVX2, "haswell"))
    (whole,) = (loop for loop in loops if loop.count() == 4 * 6 * 2)
    assert not whole.count("rsp")
    assert len(whole.lines) <= 2 * whole.count()


@needs_jit
@needs_model
@pytest.mark.parametrize("cpu", PER_CYCLE)
def test_llvm_mca_expects_nine_tenths_of_the_peak_on_arm(cpu):
    for loop in whole_loops(cpu):
        assert share_of_peak(loop, "aarch64", cpu, PER_CYCLE[cpu]) >= 0.9


@needs_jit
@needs_model
@pytest.mark.parametrize("cpu", ["haswell", "skylake", "znver2", "znver3"])
def test_llvm_mca_expects_nine_tenths_of_the_peak_with_avx2(cpu):
    (whole,) = (loop for loop in loops_of(types.float32, AVX2, "haswell") if loop.count() == 4 * 6 * 2)
    assert share_of_peak(whole, "x86_64", cpu, 2) >= 0.9
