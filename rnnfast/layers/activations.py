"""The activations of a recurrent layer's gates, read from the tape of its last window."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.kernels.cell import schedule
from rnnfast.kernels.cell.expression import evaluate
from rnnfast.kernels.cell.node import Node, in_order
from rnnfast.kernels.cell.schedule import Where
from rnnfast.kernels.recurrence.sequence import block_steps
from rnnfast.layers.plans import Plans
from rnnfast.layers.window import Inputs, Rows, Run


class Activation(NamedTuple):
    """The values of a gate.

    Attributes
    ----------
    kind : {"sigmoid", "tanh", "relu"}
    values : ndarray (N, T, H)
        Zero after the end of a sequence.
    """

    kind: str
    values: np.ndarray


class Steps(NamedTuple):
    """For each row of a window, in the order of time: sequence, step, block of the time grid, row of the
    tape, and rank of the sequence by falling length."""

    sequence: np.ndarray
    step: np.ndarray
    block: np.ndarray
    row: np.ndarray
    place: np.ndarray


class Activations(Plans):
    """A recurrent layer that can return the activations of its gates."""

    @in_turn
    def activations(self) -> dict[str, Activation]:
        """The activations of the gates in the window of the last `forward`.

        The activation of a gate is the first sigmoid, tanh or relu that its pre-activation enters, with only
        arithmetic before it: ``sigmoid(f + pf c)`` for the gate f of a peephole LSTM. Gates without such a
        function are left out, and so are activations that no gradient needs: the tape does not hold them.

        Returns
        -------
        dict of str to Activation
            `kind` and `values` (N, T, H) of each gate.
        """
        _check.objects.called_before(f"{type(self).__name__}.activations", self._run is not None, "forward")
        run = self._run
        assert run is not None
        nodes = self._activation_nodes()
        shape = run.rows.order.size, run.rows.offsets.size - 1, self.hidden_size
        found = {gate: Activation(node.op, np.zeros(shape, self.dtype)) for gate, node in nodes.items()}
        whole: list[tuple[int, Activations, Run]] = [(0, self, run)]
        pieces = self._pieces(run) if run.intact else whole
        for first, layer, piece in pieces if nodes else ():
            steps = _steps(piece.rows)
            values = layer._evaluated(nodes.values(), piece, steps)
            for activation, of_node in zip(found.values(), values, strict=True):
                activation.values[steps.sequence, first + steps.step] = of_node
        return found

    def _activation_nodes(self) -> dict[str, Node]:
        """The activations that can be computed from the arrays kept after a window."""
        lasting = self.loop.schedule.lasting

        def follows(node: Node) -> bool:
            return all(leaf in lasting or leaf.op != "input" for leaf in in_order([node], lasting))

        # The time loop may belong to another cell with equal equations; its nodes are in the same places.
        equations = self.loop.schedule.cell
        gates = dict(zip(equations.gates, self.cell.gates, strict=True))
        return {gates[gate]: node for gate, node in equations.activations.items() if follows(node)}

    def _pieces(self, run: Run) -> Iterator[tuple[int, Activations, Run]]:
        """Read the window again, one block of the time grid at a time: first step, layer and run of each."""
        reader = copy.copy(self)
        offsets, order, blocks, resets, *_ = run.rows
        for k, (first, last) in enumerate(itertools.pairwise(blocks)):
            part = slice(first, last)
            none = resets if not resets.size else np.ascontiguousarray(resets[:, part])
            rows = Rows.batch_first(
                offsets[first : last + 1] - offsets[first], order, np.array([0, last - first]), none
            )
            xs, ids, words, dwords = run.inputs
            if ids is None:
                xs = np.ascontiguousarray(xs[:, part])
            else:
                ids = np.ascontiguousarray(ids[:, part])
            given = None if run.given is None else np.ascontiguousarray(run.given[:, part])
            before = self._states_before(run, k)
            hs = np.empty((order.size, last - first, self.hidden_size), self.dtype)
            inputs, after = Inputs(xs, ids, words, dwords), np.empty_like(before)
            yield first, reader, reader.run_forward(inputs, given, before, after, rows, hs, True)

    def _states_before(self, run: Run, k: int) -> np.ndarray:
        """The states (S, N, H) before block k; zero for sequences that have ended."""
        (states, _, starts), (offsets, order, blocks, *_) = run.saved, run.rows
        batch, width, first = order.size, self.hidden_size, blocks[k]
        before = np.zeros((len(self.cell.states), batch, width), self.dtype)
        active = offsets[first + 1] - offsets[first]
        row = batch + offsets[first - 1] if first else 0
        assert states is not None
        before[0, order[:active]] = states[row : row + active, :width]
        for index, after in enumerate(before[1:]):
            assert starts is not None
            after[order[:active]] = starts[k, :active, index * width : (index + 1) * width]
        return before

    def _evaluated(self, nodes: Iterable[Node], run: Run, steps: Steps) -> tuple[np.ndarray, ...]:
        """The values (rows, H) of nodes at the steps of a run whose tape is whole."""
        nodes, lasting = tuple(nodes), self.loop.schedule.lasting
        known = {n: self._stored(lasting[n], run, steps) for n in in_order(nodes, lasting) if n in lasting}
        with np.errstate(all="ignore"):
            return evaluate(nodes, known, self.dtype.type)

    def _stored(self, where: Where, run: Run, steps: Steps) -> np.ndarray:
        """The values stored at a place, (rows, H), or (H,) for values per unit."""
        (place, column), (states, tape, starts), rows = where, run.saved, run.rows
        width, batch = self.hidden_size, rows.order.size
        block = slice(column * width, (column + 1) * width)
        assert states is not None
        if place == schedule.UNITS:
            return self._kernel_params()[4][column]
        if place == schedule.GIVEN:
            assert run.given is not None
            return run.given[steps.sequence, steps.step, block]
        if place == schedule.AFTER:
            return states[batch + np.arange(steps.row.size), :width]
        if place == schedule.TAPE:
            assert tape is not None
            return tape[steps.row, block]
        earlier = rows.offsets[np.maximum(steps.step - 1, 0)]
        if place == schedule.BEFORE:
            found = states[np.where(steps.step, batch + earlier, 0) + steps.place, :width]
        else:
            assert tape is not None
            assert starts is not None
            begins = rows.blocks[steps.block]
            row = steps.row - rows.offsets[steps.step] + earlier  # of the step before
            first = self.loop.schedule.others + column
            on_tape = tape[np.where(steps.step > begins, row, 0), first * width : (first + 1) * width]
            at_start = (steps.step == begins)[:, np.newaxis]
            found = np.where(at_start, starts[steps.block, steps.place, block], on_tape)
        if rows.resets.size:
            found[rows.resets[steps.sequence, steps.step]] = 0
        return found


def _steps(rows: Rows) -> Steps:
    """The places of a window's rows on a tape that holds all of them."""
    offsets, order, blocks, *_ = rows
    index = np.arange(offsets[-1])
    step = np.searchsorted(offsets, index, side="right") - 1
    block = np.searchsorted(blocks, step, side="right") - 1
    place = index - offsets[step]
    row = block * block_steps(order.size) * order.size + index - offsets[blocks[block]]
    return Steps(order[place], step, block, row, place)
