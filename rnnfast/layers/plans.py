"""The two passes over a window of a recurrent layer: threads, scratch arrays and kernel calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnnfast.engine import threads
from rnnfast.engine.load import Pace
from rnnfast.kernels.product.bfloat16 import PAIRS
from rnnfast.kernels.product.gemm import packed_shape
from rnnfast.kernels.recurrence.groups import group_gradients, rounded_group_gradients, terms_of
from rnnfast.kernels.recurrence.operands import panels_shape, widths_of
from rnnfast.kernels.recurrence.sequence import block_steps, padded_row
from rnnfast.kernels.recurrence.shares import recurrent_packed_size
from rnnfast.layers.base import Workspace
from rnnfast.layers.streaming import Streaming
from rnnfast.layers.window import Blocks, Groups, Inputs, Reduction, Rows, Run, Team, nothing, packed_rows

# The memory limit for keeping the tape of all steps for `backward`. A longer sequence keeps one block of it,
# and `backward` recomputes the others from the states, which takes up to 4/3 of the time.
KEPT_BYTES = 128 * 2**20

# With fewer sequences than this, threads split the units instead, if a step is worth the synchronization.
LEAST_SEQUENCES = 8
LEAST_STEP_OPERATIONS = 1e5


class Plan(NamedTuple):
    """The threads and arrays of a pass.

    Attributes
    ----------
    team : Team
    saved : tuple of ndarray
        The cache of `forward` for `backward`; None for arrays the cell does not have, also in `scratch`.
    scratch : tuple of ndarray, or Back
    intact : int
        The first block of the time grid whose rows of the tape are not overwritten by later blocks.
    zeros : ndarray (S, N, H)
        Fresh states, or gradients of states if none arrive; never written.
    pace : Pace
        Measured times of the passes.
    """

    team: Team
    saved: tuple[Any, ...]
    scratch: Any
    intact: int
    zeros: np.ndarray
    pace: Pace


class Back(NamedTuple):
    """The scratch of a backward pass, under the kernel's names."""

    packed_x: np.ndarray
    packed_h: np.ndarray | None
    packed_late: np.ndarray | None
    packed_wx: np.ndarray | None
    packed_wh: np.ndarray | None
    packed_wlate: np.ndarray | None
    dts: np.ndarray
    dstates: np.ndarray
    x_block: np.ndarray
    sums: np.ndarray
    h_block: np.ndarray
    kept: np.ndarray | None
    carry: np.ndarray | None
    operand: np.ndarray | None
    x_columns: np.ndarray | None
    h_columns: np.ndarray | None
    d_columns: np.ndarray | None
    x_pairs: np.ndarray | None
    h_pairs: np.ndarray | None
    d_pairs: np.ndarray | None
    widths: np.ndarray
    panels: np.ndarray


class Plans(Streaming):
    """A recurrent layer that plans its passes; `footprint` computes their memory from the same plans."""

    TAPE = (*Streaming.TAPE, "_run")
    PASSING = (*Streaming.PASSING, "_full_rows", "_stepper")
    _run: Run | None = None
    _full_rows: Rows | None = None
    _stepper: Plans | None = None  # a layer on the same parameters, for steps that are windows

    transposed = False  # whether Wx and Wh are stored as (G*H, D) and (G*H, H)

    def _planned(
        self, direction: str, rows: Rows, words: int, flag: bool, make: Callable[[int, Rows, int, bool], Plan]
    ) -> Plan:
        """The plan of `make(batch, rows, words, flag)`. The last one is cached: for the same rows a hit takes
        0.4 us, for others that it fits 3 us, a new plan 15 us."""
        key = words, flag, KEPT_BYTES, threads.get_num_threads(), self.precision
        plans = self._workspace.plans
        known = plans.get(direction)
        if known is not None and known[1] == key:
            if known[0] is rows:
                return known[2]
            if self._fits(known[2], known[0], rows, direction):
                plans[direction] = rows, key, known[2]
                known[2].pace.forget()
                return known[2]
        known = None  # what it holds may have to grow
        plans.pop(direction, None)
        plan = make(rows.order.size, rows, words, flag)
        plans[direction] = rows, key, plan
        return plan

    def _fits(self, plan: Plan, planned: Rows, rows: Rows, direction: str) -> bool:
        """Whether a plan for other rows serves these: batch, blocks and threads are the same."""
        batch = rows.order.size
        return (
            (planned.order.size, planned.blocks.size) == (batch, rows.blocks.size)
            and (not plan.saved or plan.saved[0].shape[0] >= batch + rows.offsets[-1])
            and plan.team == self._team(rows, direction)
        )

    def plan_forward(self, batch: int, rows: Rows, words: int, keep: bool) -> Plan:
        """Plan a forward pass; `keep` the tape of all steps if it fits."""
        take, row, other_row = self._take, self._row(1), self._row(len(self.cell.states) - 1)
        schedule, width = self.loop.schedule, self.hidden_size
        equations, gates = schedule.cell, len(schedule.cell.gates)
        team, tape_row = self._team(rows, "forward"), self._row(schedule.columns)
        if self.cell.rows:  # filled by `read`
            steps = rows.offsets.size - 1
            take("given", batch, steps, len(self.cell.rows) * width)
            take("given drawn", batch, steps, width)
        blocks = max(1, rows.blocks.size - 1)
        block_rows = block_steps(batch) * batch
        fits = blocks * block_rows * tape_row * self.dtype.itemsize <= KEPT_BYTES
        slots = blocks if (fits and keep) or not schedule.can_remake else 1
        saved = (
            take("states", batch + int(rows.offsets[-1]), row),
            take("tape", slots * block_rows, tape_row) if tape_row else None,
            take("starts", blocks, batch, other_row) if other_row else None,
        )
        scratch = (
            self._packed("packed_x", self.input_size, gates * width),
            self._panels("packed_h", width, equations.plain, team),
            self._panels("packed_late", width, equations.late, team),
            self._input_block(batch),
            take("table", words, gates * width),
            take("kept", batch, row),
            take("carry", batch, other_row) if other_row else None,
            take("operand", batch, row) if equations.again else None,
            self._columns("x_columns", block_rows, self.input_size),
            self._columns("h_columns", batch, width),
        )
        return Plan(team, saved, scratch, blocks - slots if tape_row else 0, self._fresh(batch), Pace())

    def plan_backward(self, batch: int, rows: Rows, words: int, recompute: bool) -> Plan:
        """Plan a backward pass; `recompute` recomputes blocks of the tape."""
        take, row, other_row = self._take, self._row(1), self._row(len(self.cell.states) - 1)
        schedule, depth, width = self.loop.schedule, self.input_size, self.hidden_size
        equations, cols = schedule.cell, len(schedule.cell.gates) * width
        plain, late = equations.plain * width, equations.late * width
        block_rows, gradient_row = block_steps(batch) * batch, self._row(schedule.gradients)
        team, widths = self._team(rows, "backward"), widths_of(schedule, 0 if words else depth, width)

        def again(name: str, depth: int, cols: int) -> np.ndarray | None:
            if not schedule.columns or not cols:
                return None
            return self._packed(name, depth, cols if recompute else 0)

        scratch = Back(
            self._packed("packed_x", cols, depth),
            self._panels("packed_h", plain, 1, team),
            self._panels("packed_late", late, 1, team),
            again("packed_wx", depth, cols),
            again("packed_wh", width, plain),
            again("packed_wlate", width, late),
            take("gradients", block_rows + 1, gradient_row),
            take("dstates", batch, self._row(len(self.cell.states))),
            self._input_block(batch),
            take("sums", words + 1 if words else 0, gradient_row),
            take("h_block", block_rows + 1, row),
            take("kept", batch, other_row) if other_row else None,
            take("carry", batch, other_row) if other_row else None,
            take("operand", block_rows if recompute else batch, row) if equations.again else None,
            self._columns("x_columns", block_rows if recompute else 0, depth),
            self._columns("h_columns", block_rows if recompute else 0, width),
            self._columns("d_columns", block_rows, *self._parts_of_gradients()),
            *self._row_pairs(block_rows, gradient_row),
            widths,
            self._operand_panels("panels", block_rows, widths),
        )
        return Plan(team, (), scratch, 0, self._fresh(batch), Pace())

    def _fresh(self, batch: int) -> np.ndarray:
        return np.zeros((len(self.cell.states), batch, self.hidden_size), self.dtype)

    def _packed(self, name: str, depth: int, cols: int) -> np.ndarray:
        """Memory for an operand in panels."""
        shape, kind = packed_shape(depth, cols, self.dtype, self.rounds)
        return self._workspace.take(name, shape, kind)

    def _columns(self, name: str, rows: int, *depths: int) -> np.ndarray | None:
        """Memory for rows of operands in pairs of columns, side by side; None unless operands are rounded."""
        if not self.rounds:
            return None
        row = padded_row(sum(-(-depth // 2) for depth in depths), PAIRS)
        return self._workspace.take(name, (rows, row), PAIRS)

    def _parts_of_gradients(self) -> tuple[int, ...]:
        """Widths of the operands in a row of gradients of pre-activations."""
        equations, width = self.loop.schedule.cell, self.hidden_size
        if equations.again:
            return equations.plain * width, equations.late * width
        return len(equations.gates) * width, equations.late * width

    def _row_pairs(
        self, block_rows: int, gradient_row: int
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Memory for the inputs, states and gradients of a block in pairs of rows."""
        if not self.rounds:
            return None, None, None
        x, h, d = (
            self._workspace.take(name, (block_rows // 2 + 2, row), PAIRS)
            for name, row in (
                ("x_pairs", padded_row(self.input_size, self.dtype)),
                ("h_pairs", self._row(1)),
                ("d_pairs", gradient_row),
            )
        )
        return x, h, d

    def _operand_panels(self, name: str, rows: int, widths: np.ndarray) -> np.ndarray:
        """Memory for operands of weight gradients in panels."""
        return self._workspace.take(
            name, *panels_shape(widths, self.rounds, self.transposed, rows, self.dtype)
        )

    def _panels(self, name: str, depth: int, blocks: int, team: Team) -> np.ndarray | None:
        """Memory for a recurrent operand in panels."""
        if not depth or not blocks:
            return None
        deep, kind = (-(-depth // 2), PAIRS) if self.rounds else (depth, self.dtype)
        size = recurrent_packed_size(deep, self.hidden_size, blocks, team.members, self.dtype)
        return self._workspace.take(name, (size,), kind)

    def _row(self, blocks: int) -> int:
        """The row stride, in elements, of a time-major array with this number of blocks of H columns."""
        return padded_row(blocks * self.hidden_size, self.dtype) if blocks else 0

    def _input_block(self, batch: int) -> np.ndarray:
        """Scratch for the inputs of one block of the time grid."""
        return self._take("x_block", block_steps(batch) * batch + 1, padded_row(self.input_size, self.dtype))

    def _team(self, rows: Rows, direction: str) -> Team:
        """The threads for a pass over a window."""
        batch, units = rows.order.size, self.hidden_size
        weights, deep = len(self.cell.gates) * units, units if self.cell.product == "h" else 0
        by_units = batch < LEAST_SEQUENCES
        worth_meeting = not deep or 2.0 * batch * weights * deep >= LEAST_STEP_OPERATIONS
        most = (units // 16 if worth_meeting and not rows.resets.size else 1) if by_units else batch // 4
        products = 1 if direction == "forward" else 2  # per element of the weights
        operations = 2.0 * products * float(rows.offsets[-1]) * weights * (self.input_size + deep)
        return Team(threads.members_for(operations, most), by_units)

    def run_forward(
        self,
        inputs: Inputs,
        given: np.ndarray | None,
        before: np.ndarray | None,
        after: np.ndarray,
        rows: Rows,
        hs: np.ndarray,
        keep: bool,
        groups: Groups | None = None,
    ) -> Run:
        """Fill `hs` (N, T, H) and `after` (S, N, H); returns the run for `run_backward`."""
        plan = self._planned("forward", rows, inputs.words.shape[0], keep, self.plan_forward)
        packed = self._workspace.packed
        made = packed.lend(self._freezes, plan.scratch[:3])
        # A list: CPython 3.11 keeps up to 2,000 dead tuples of a length up to 20.
        arguments = [
            *inputs[:3], given, plan.zeros if before is None else before, *self._kernel_params(),
            self.transposed, made, *rows, *plan.saved, hs, after, *plan.scratch,
        ]  # fmt: skip
        threads.run(self.loop.forward, *plan.team, arguments, plan.pace)
        packed.keep()
        return Run(inputs, given, rows, plan.saved, plan.intact, groups)

    def _forget_precision(self) -> None:
        super()._forget_precision()
        self._stepper = None

    def _step_in_window(
        self, x: np.ndarray, given: np.ndarray | None, state: np.ndarray, h: np.ndarray
    ) -> None:
        if self._stepper is None:  # it has memory of its own, since a step keeps the last window for backward
            self._stepper = copy.copy(self)
            self._stepper.share_constants(self)
            self._stepper.carry(None)
        stepper, none, batch = self._stepper, nothing(self.dtype, 2), x.shape[0]
        stepper._freezes = self._freezes
        rows = stepper._full_rows = packed_rows("", batch, 1, None, None, stepper._full_rows)
        inputs = Inputs(x[:, np.newaxis], None, none, none)
        stepper.run_forward(inputs, given, state, state, rows, h[:, np.newaxis], False)

    def run_backward(
        self,
        run: Run,
        dhs: np.ndarray,
        later: np.ndarray | None,
        dxs: np.ndarray,
        dstates: np.ndarray,
        adds: bool,
        room: Workspace | None = None,
    ) -> None:
        """Fill `dxs` (N, T, D) or `inputs.dwords`, `dstates` (S, N, H) and `grads`.

        `room` is memory for the gradients of pre-activations of all steps, which groups need.
        """
        remakes = run.intact > 0
        plan = self._planned("backward", run.rows, run.inputs.words.shape[0], remakes, self.plan_backward)
        if remakes:
            # Recomputed blocks overwrite kept ones. After an interrupt, the next call recomputes all blocks.
            self._run = run._replace(intact=run.rows.blocks.size - 1)
        equations, dgiven = self.cell.equations, None
        if equations.wanted:
            dgiven = self._take("dgiven", *dhs.shape[:2], len(equations.wanted) * self.hidden_size)
        grads = self._kernel_grads
        if grads is None:
            grads = self._kernel_grads = self._gradient_arrays()
        groups, scratch = None if adds else run.groups, plan.scratch
        if groups is not None:
            shape = int(run.rows.offsets[-1]) + 1, scratch.dts.shape[1]
            scratch = scratch._replace(dts=(room or self._workspace).take("all gradients", shape, self.dtype))
        arguments = (
            *run.inputs[:3], run.given, *run.saved, run.intact, dhs, plan.zeros if later is None else later,
            *self._kernel_params(), self.transposed, *run.rows, adds, groups is not None,
            dxs, run.inputs.dwords, dgiven, dstates, *grads, *scratch,
        )  # fmt: skip
        threads.run(self.loop.backward, *plan.team, arguments, plan.pace)
        if groups is not None:
            self._run_groups(run, groups, grads, scratch, plan.team.members)
        self._dgiven = dgiven
        self.hand_out()

    def hand_out(self) -> None:
        """Fill the gradients of parameters that kernels read as rows of units."""
        if self.cell.equations.trained:
            assert self._kernel_grads is not None
            self._hand_out(self._kernel_grads[-1])

    def reduce(self, reduction: Reduction) -> None:
        """Begin to sum the gradients of the last `backpropagate` over processes."""
        assert self._kernel_grads is not None
        assert self._run is not None
        found = [array for array in self._kernel_grads if array is not None]
        if self._run.inputs.ids is not None:
            found.append(self._run.inputs.dwords)
        reduction.begin(found, self.hand_out)

    def _grouped(self, rows: Rows, blocks: Blocks | None) -> Groups | None:
        """The groups of a batch with several blocks; the last ones are cached."""
        if blocks is None or blocks.size < 2:
            return None
        known = self._workspace.plans.get("groups")
        if known is None or known[0] is not rows or known[1] is not blocks.bounds:
            known = self._workspace.plans["groups"] = rows, blocks.bounds, Groups.of(rows, blocks)
        return known[2]

    def _run_groups(self, run: Run, groups: Groups, grads: list[Any], scratch: Back, members: int) -> None:
        """Fill `grads` and `inputs.dwords` by groups, from the gradients of pre-activations of all steps."""
        take, empty, dts = self._take, nothing(self.dtype, 1), scratch.dts
        xs, ids, words, dwords = run.inputs
        levels, rows = (groups.counts.size - 1).bit_length(), groups.most_rows
        known = self._workspace.plans.get("terms")
        if known is None or known[0] is not dwords:
            results = [empty if array is None else array.reshape(-1) for array in (*grads, dwords)]
            terms = terms_of(self.loop.schedule, self.input_size, self.hidden_size, self.transposed)
            regions = np.concatenate(([0], np.cumsum([array.size for array in results])))
            known = self._workspace.plans["terms"] = dwords, terms, regions, results
        _, terms, regions, results = known
        arguments = (
            xs, ids, words, run.saved[0], dts, run.rows.offsets, run.rows.order, run.rows.resets,
            self.transposed,
            *groups[:-1], scratch.widths, terms, regions, *results,
            take("partial", levels * int(regions[-1])), scratch.packed_x,
            take("group_x", rows + 1, padded_row(self.input_size, self.dtype)),
            take("group_h", rows + 1, self._row(1)),
            take("group_d", rows + 1, dts.shape[1]),
            take("sums", words.shape[0] + 1 if ids is not None else 0, dts.shape[1]),
            *self._row_pairs(rows, dts.shape[1]),
            self._operand_panels("group_panels", rows, scratch.widths),
            self._columns("group_columns", words.shape[0], len(self.cell.gates) * self.hidden_size),
        )  # fmt: skip
        kernel = rounded_group_gradients if self.rounds else group_gradients
        threads.run(kernel, members, False, arguments)
