"""Any cell as a module of PyTorch: `Recurrent`."""

from __future__ import annotations

import threading
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.layers.recurrent import Recurrent as Layer
from rnnfast.torch import serving
from rnnfast.torch.layout import DTYPES, array_of, is_plain, untraced
from rnnfast.torch.windows import OnTorchThreads, idle


class PooledLayer(OnTorchThreads, Layer):
    """A layer for one window, on memory that others have left."""

    def __init__(self, cell: Cell, params: list[np.ndarray]) -> None:
        super().__init__(cell, params, True)
        self.lock = threading.Lock()  # of the gradients, where two threads go back through one graph
        self._key = cell.fingerprint, self.dtype, self.input_size, self.hidden_size
        self._workspace = idle.take(self._key)

    def __del__(self) -> None:
        if "_key" in self.__dict__:
            idle.give_back(self._key, self._workspace)


PooledLayer.__name__ = "rnnfast.torch.Recurrent"  # in error messages


class _Window(torch.autograd.Function):
    """One layer over one window: outputs and final states, from all that they depend on."""

    @staticmethod
    def forward(
        ctx: Any, layer: Layer, keep: bool, options: dict[str, Any], counts: tuple[int, int], *tensors: Any
    ) -> Any:
        """`counts` of given arrays and of states; `tensors` are xs (N, T, D), these, and the parameters."""
        arrays = [array_of(tensor) for tensor in tensors]
        given, states = counts
        layer.set_state(*arrays[1 + given : 1 + given + states])
        names = layer.given_names
        hs = layer.forward(
            arrays[0],
            keep=keep and any(ctx.needs_input_grad),
            **options,
            **dict(zip(names, arrays[1 : 1 + given], strict=True)),
        )
        layer.hand_over()
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.layer, ctx.counts, ctx.shape = layer, counts, hs.shape
        final = layer.get_state()
        assert final is not None
        return torch.from_numpy(hs), *(torch.from_numpy(state) for state in final)

    @staticmethod
    def backward(ctx: Any, dhs: Any, *later: Any) -> Any:
        """The gradient of each tensor."""
        xs, *_ = ctx.saved_tensors
        layer: PooledLayer = ctx.layer
        given, _ = ctx.counts
        dhs = torch.zeros(ctx.shape, dtype=xs.dtype) if dhs is None else dhs
        arriving = [None if one is None else array_of(one) for one in later]
        with layer.lock:
            dxs = layer.backpropagate(array_of(dhs), arriving)
            states = layer.get_state_gradients()
            found = layer.given_gradients if given else {}
            grads = [grad.copy() for grad in layer.grads]
        assert states is not None
        of_given = [
            (array if tensor.dim() == 3 else array.sum(axis=2))
            for array, tensor in zip(found.values(), ctx.saved_tensors[1:], strict=False)
        ]
        made = [torch.from_numpy(one) for one in (dxs, *of_given, *states, *grads)]
        if torch.is_grad_enabled():
            made = _NotAgain.apply(torch.zeros((), requires_grad=True), *made)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.layer = None  # its memory may go
        return None, None, None, None, *made


class _NotAgain(torch.autograd.Function):
    """Gradients whose own gradient is an error, not a number."""

    @staticmethod
    def forward(ctx: Any, _: torch.Tensor, *gradients: torch.Tensor) -> Any:
        """The gradients."""
        return tuple(gradient.view_as(gradient) for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """There is none."""
        raise RuntimeError(
            "rnnfast.torch.Recurrent: its gradients cannot be differentiated again; those of torch.nn can."
        )


class Recurrent(torch.nn.Module):
    """Layers of any cell, ready or your own, as a module of PyTorch with gradients.

    Parameters
    ----------
    cell : Cell
        The equations of one step: one of `rnnfast.cells`, or of `rnnfast.cell`.
    input_size, hidden_size : int
    num_layers : int
        Layers above each other.
    batch_first : bool
        Whether inputs and outputs are (N, T, ...) instead of (T, N, ...), as in `torch.nn.LSTM`.
    dropout : float
        Share of the outputs dropped between two layers while training.
    dtype : torch.float32 or torch.float64, optional
        PyTorch's default dtype by default.

    Attributes
    ----------
    cell : Cell
    constants : mapping of str to float
        The cell's constants, which are buffers ``constant_NAME``; ``module.constants = {name: value}`` sets
        them.

    Notes
    -----
    Parameters have the names of a layer's, with ``_l`` and the layer's number: ``Wx_l0`` (D, G*H), ``Wh_l0``,
    ``b_l0``, and the cell's own. They start as those of `cell.layer`, with seeds drawn by
    PyTorch. Random arguments of the cell are drawn anew in each call in training, from PyTorch's seed, and
    are their mean after `eval()`. Gradients cannot be differentiated again, which is an error. PyTorch has no
    code for other cells to fall back on, so `torch.func`, forward mode, `rnnfast.torch.compile` and export
    are errors, too. Inputs are batches of Tensors in the dtype of the parameters, also under autocast. There
    is one direction.

    Examples
    --------
    >>> import torch, rnnfast
    >>> from rnnfast.torch import Recurrent
    >>> layer = Recurrent(rnnfast.cells.leaky, 3, 16, batch_first=True)
    >>> out, (h, v) = layer(torch.zeros(2, 5, 3))
    >>> out.shape, v.shape
    (torch.Size([2, 5, 16]), torch.Size([1, 2, 16]))
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = f"rnnfast.torch.{type(self).__name__}"
        _check.objects.a_cell(owner, cell, Cell)
        self.cell = cell
        self.input_size = _check.values.size(owner, "input_size", input_size)
        self.hidden_size = _check.values.size(owner, "hidden_size", hidden_size)
        self.num_layers = _check.values.size(owner, "num_layers", num_layers)
        self.batch_first = bool(batch_first)
        self.dropout = _check.values.number_below(owner, "dropout", dropout, 0, 1)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in DTYPES:
            raise TypeError(f"{owner}: dtype must be torch.float32 or torch.float64, got {dtype}.")
        rng = np.random.default_rng(int(torch.randint(2**62, ()).item()))
        for name, value in cell.layer(1, 1, rng=rng).constants.items():
            self.register_buffer(f"constant_{name}", torch.tensor(value, dtype=torch.float64))
        for index in range(self.num_layers):
            depth = self.input_size if not index else self.hidden_size
            drawn = cell.layer(depth, self.hidden_size, rng=rng, dtype=np.float64)
            for name, values in zip(drawn.parameter_names, drawn.params, strict=True):
                self.register_parameter(
                    f"{name}_l{index}", torch.nn.Parameter(torch.from_numpy(values).to(dtype))
                )

    @property
    def constants(self) -> Mapping[str, float]:
        """The cell's constants by name; may be set from a mapping."""
        names = [name for name, role in self.cell.roles.items() if role.kind == "constant"]
        return types.MappingProxyType({name: float(getattr(self, f"constant_{name}")) for name in names})

    @constants.setter
    def constants(self, values: Mapping[str, float]) -> None:
        checked = self.cell.layer(1, 1).constants
        checked.update(values)
        for name in values:
            getattr(self, f"constant_{name}").fill_(checked[name])

    def extra_repr(self) -> str:
        """What the module shows of itself."""
        return f"{self.cell.name}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"

    def _checked(self, owner: str, name: str, tensor: Any, shape: tuple[Any, ...]) -> torch.Tensor:
        """A tensor of the parameters' dtype, on the CPU, of this shape; named axes may have any size."""
        dtype = next(self.parameters()).dtype
        if not isinstance(tensor, torch.Tensor):
            way = "; pass the padded tensor with lengths=" if isinstance(tensor, PackedSequence) else ""
            raise TypeError(f"{owner}: {name} must be a Tensor, got {type(tensor).__name__}{way}.")
        if tensor.device.type != "cpu" or tensor.dtype is not dtype or dtype not in DTYPES:
            way = f"; under autocast, pass {name}.to({dtype})" if torch.is_autocast_enabled("cpu") else ""
            raise TypeError(
                f"{owner}: {name} and the parameters must be float32 or float64 of one kind on the CPU, got "
                f"{tensor.dtype} on {tensor.device} and {dtype}{way}."
            )
        fits = len(shape) == tensor.dim() and all(
            isinstance(want, str) or want == got for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{owner}: {name} must have the shape ({wanted}), got {tuple(tensor.shape)}.")
        return tensor

    def _batch_first(self, owner: str, name: str, tensor: Any, shape: tuple[Any, ...]) -> torch.Tensor:
        """A checked tensor (T, N, ...) as (N, T, ...); it is given so if the module is batch first."""
        if self.batch_first:
            shape = shape[1], shape[0], *shape[2:]
        checked = self._checked(owner, name, tensor, shape)
        return checked if self.batch_first else checked.transpose(0, 1)

    def _given(self, owner: str, given: dict[str, Any], batch: int, steps: int) -> list[torch.Tensor]:
        """The cell's given arrays (N, T, H) or (N, T), in its order."""
        names = self.cell.equations.wanted
        _check.objects.known_arguments(owner, given, ("lengths", "resets", *names))
        found = []
        for name in names:
            if name not in given:
                raise TypeError(f"{owner}: the cell needs the argument {name}, a Tensor (T, N, H) or (T, N).")
            axes = getattr(given[name], "ndim", 0)
            shape = (steps, batch) if axes == 2 else (steps, batch, self.hidden_size)
            found.append(self._batch_first(owner, name, given[name], shape))
        return found

    @untraced
    def forward(
        self,
        input: torch.Tensor,
        states: Sequence[torch.Tensor] | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        **given: torch.Tensor,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run over a window.

        Parameters
        ----------
        input : Tensor (T, N, D), or (N, T, D) if `batch_first`
        states : sequence of Tensor (num_layers, N, H), optional
            One for each state of the cell, in its order; zero by default.
        lengths : sequence of N ints, optional
            Steps of each sequence, in any order; outputs behind an end are zero.
        resets : bool array (N, T), optional
            Where True, the state is zero before that step.
        **given : Tensor (T, N, H) or (T, N), or batch first
            The cell's given arrays, by name, for every layer; their gradients come back.

        Returns
        -------
        output : Tensor (T, N, H), or batch first
        states : tuple of Tensor (num_layers, N, H)
            The final ones.

        Raises
        ------
        TypeError, ValueError
            Something has another dtype or shape, or a given array is missing.
        """
        owner = f"rnnfast.torch.{type(self).__name__}.forward"
        x = self._batch_first(owner, "input", input, ("T", "N", self.input_size))
        batch, steps = x.shape[:2]
        arrays = self._given(owner, given, batch, steps)
        count, shape = len(self.cell.states), (self.num_layers, batch, self.hidden_size)
        if states is None:
            states = [x.new_zeros(shape)] * count
        if not isinstance(states, tuple | list) or len(states) != count:
            names = f"({', '.join(self.cell.states)}{',' * (count == 1)})"
            got = type(states).__name__ + (f" of {len(states)}" if isinstance(states, tuple | list) else "")
            raise TypeError(f"{owner}: states must be a tuple {names}, each (num_layers, N, H); got {got}.")
        for name, state in zip(self.cell.states, states, strict=True):
            self._checked(owner, name, state, shape)
        if resets is not None:
            resets = _check.arrays.mask(owner, "resets", np.asarray(resets), (batch, steps))
        options = {
            "lengths": None if lengths is None else np.asarray(lengths),
            "reset": resets,
        }
        serving.note(self.cell.name, input, "")
        try:
            return self._run(x, states, arrays, options)
        except (RuntimeError, NotImplementedError) as error:
            tensors = x, *states, *arrays, *self.parameters()
            if torch.autograd.forward_ad._current_level < 0 and all(is_plain(one) for one in tensors):
                raise
            raise RuntimeError(
                f"{owner}: torch.func, forward mode, export and tensor subclasses need PyTorch's own layers; "
                f"use torch.nn.RNN, LSTM or GRU."
            ) from error

    def _run(
        self,
        x: torch.Tensor,
        states: Sequence[torch.Tensor],
        arrays: list[torch.Tensor],
        options: dict[str, Any],
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Outputs and final states, from checked arguments; x (N, T, D)."""
        finals = []
        for index in range(self.num_layers):
            params = [getattr(self, f"{name}_l{index}") for name in self.cell.shapes(1, 1)]
            layer = PooledLayer(self.cell, [array_of(param) for param in params])
            layer.constants.update(self.constants)
            layer.train_flg = self.training
            if self.cell.random:
                layer.rng_state = int(torch.randint(2**62, ()).item()), 0
            x, *final = _Window.apply(
                layer,
                torch.is_grad_enabled(),
                options,
                (len(arrays), len(states)),
                x,
                *arrays,
                *(state[index] for state in states),
                *params,
            )
            finals.append(final)
            if self.dropout and index + 1 < self.num_layers:
                x = functional.dropout(x, self.dropout, self.training)
        output = x if self.batch_first else x.transpose(0, 1)
        return output, tuple(torch.stack(one) for one in zip(*finals, strict=True))
