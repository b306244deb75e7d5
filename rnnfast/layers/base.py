"""The base of layers and models, and their scratch memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.arrays import FixedList, View, as_views, base_of, from_views, shown
from rnnfast.engine.locks import ObjectLock, in_turn
from rnnfast.layers.frozen import Freeze, Packed, lifted, protect, release


class Workspace:
    """Named scratch arrays, reused by each call; they grow for a bigger batch.

    Memory starts at a 64-byte boundary, so that vector loads do not straddle cache lines.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}
        self._last: dict[str, np.ndarray] = {}  # a lookup takes 0.2 us, making a view 1.7 us
        self.plans: dict[str, Any] = {}  # an owner's cache over these arrays; cleared when one is replaced
        self.packed = Packed()
        self.nbytes = 0

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of this shape, with its old content if the last call had the same name and shape."""
        last = self._last.get(name)
        if last is not None and last.shape == shape and last.dtype == dtype:
            return last
        count = 1
        for axis in shape:
            count *= axis
        nbytes = count * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < nbytes:
            last = buffer = None  # free it first: two arrays would raise the peak
            self.plans.clear()
            self.nbytes += nbytes - (self._buffers.pop(name).size if name in self._buffers else 0)
            self._last.pop(name, None)
            raw = np.empty(nbytes + 64, dtype=np.uint8)
            start = -raw.ctypes.data % 64
            buffer = raw[start : start + nbytes]
            self._buffers[name] = buffer
        array = self._last[name] = buffer[:nbytes].view(dtype).reshape(shape)
        return array


class Holder:
    """Base of layers and models: fixed parameter and gradient arrays, thread safety, copies.

    A copy (`copy.deepcopy`, `pickle`) has the parameters, the gradients and the carried state, but not the
    cache of `forward` for `backward`. `copy.copy` makes a new object on the same parameters.
    """

    # The attributes that cache the last `forward` for `backward`.
    TAPE: tuple[str, ...] = ("_workspace", "_made_by")
    # Further attributes that a copy makes anew.
    PASSING: tuple[str, ...] = ("_turn", "_weights", "_dweights", "_overwritten", "_freezes")

    _workspace: Workspace
    _made_by: int | None = None  # the thread that called the last `forward`
    _turn: ObjectLock
    _freezes: tuple[Freeze, ...] = ()
    # Views of `params` and `grads` for the kernels: a caller may change the shape of the original arrays.
    _weights: tuple[np.ndarray, ...]
    _dweights: tuple[np.ndarray, ...]

    def __init_subclass__(cls) -> None:
        """Let errors about arguments of the constructor name those there are."""
        super().__init_subclass__()
        if "__init__" in cls.__dict__:
            cls.__init__ = _check.objects.knows_arguments(cls.__init__)  # type: ignore[method-assign]

    def _hold(self, params: Sequence[np.ndarray] = (), grads: Sequence[np.ndarray] | None = None) -> None:
        """Set the parameters and the gradients; gradients are zero by default."""
        owner = type(self).__name__
        if grads is None:
            grads = [np.zeros(param.shape, param.dtype) for param in params]
        self._params = FixedList(owner, "params", params)
        self._grads = FixedList(owner, "grads", grads)
        self._weights = tuple(param.view() for param in params)
        self._dweights = tuple(grad.view() for grad in grads)
        self._overwritten = {id(base_of(grad)) for grad in grads}
        self._turn = ObjectLock()
        Holder.restore_tape(self, None)

    @property
    def params(self) -> list[np.ndarray]:
        """The parameters: always the same arrays; optimizers write in place."""
        return self._params

    @params.setter
    def params(self, value: Any) -> None:
        raise _check.objects.fixed(type(self).__name__, "params")

    @property
    def grads(self) -> list[np.ndarray]:
        """The gradient of each parameter: always the same arrays; `backward` writes in place."""
        return self._grads

    @grads.setter
    def grads(self, value: Any) -> None:
        raise _check.objects.fixed(type(self).__name__, "grads")

    @property
    def workspace(self) -> Workspace:
        """The scratch memory; it belongs to the tape."""
        return self._workspace

    def hand_over(self) -> None:
        """Let another thread call `backward` for the last `forward`."""
        self._made_by = None

    @contextmanager
    def frozen(self) -> Iterator[Any]:
        """A context in which the weights do not change, for inference: they are packed once, at first use.

        Results have the same bits. Inside, `params` are read-only: writing into them, an optimizer's update
        and `backward` are errors. Writes through views of your own from before are not seen, and give results
        of the old weights. Contexts may be nested, and any thread may read inside.

        Yields
        ------
        The layer or model itself.

        Examples
        --------
        >>> import numpy as np, rnnfast
        >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
        >>> with layer.frozen():
        ...     hs = [layer.forward(np.ones((1, 5, 3), np.float32)) for _ in range(10)]
        ...     layer.params[0].flags.writeable
        False
        >>> layer.params[0].flags.writeable
        True
        """
        parts = self.freezing_parts()
        with self._freezing(parts) as freeze:
            protect([param for part in parts for param in part.params], freeze)
            yield self

    def freezing_parts(self) -> list[Holder]:
        """The objects whose calls `frozen` concerns."""
        return [self]

    @contextmanager
    def _freezing(self, parts: Sequence[Holder]) -> Iterator[Freeze]:
        """A freeze of parts; it begins when the caller says so."""
        freeze = Freeze()
        try:
            for part in parts:
                part.begin_freeze(freeze)
            yield freeze
        finally:
            release(freeze)
            for part in parts:
                with part._turn:
                    part._freezes = part.freezes

    def begin_freeze(self, freeze: Freeze) -> None:
        """Take part in a freeze."""
        with self._turn:
            self._freezes = (*self._freezes, freeze)

    @property
    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes that are on."""
        return tuple(one for one in self._freezes if one.is_on)

    def parts(self) -> Sequence[Holder]:
        """The objects whose gradients `backward` fills as well."""
        return ()

    def check_trainable(self) -> None:
        """Guard of `backward` and training, before anything changes: RuntimeError while another thread trains
        this object or a part of it, or while their weights are frozen."""
        self.claim("backward")
        if self._freezes and self.freezes:
            raise RuntimeError(
                f"{type(self).__name__}.backward: the weights are frozen; leave the `with` block "
                "of frozen() first."
            )
        for part in self.parts():
            part.check_trainable()

    def _claim_tape(self) -> None:
        """Guard of `backward`: `check_trainable`, and RuntimeError if another thread called the last
        `forward`."""
        self.check_trainable()
        if self._made_by not in (None, get_ident()):
            raise RuntimeError(
                f"{type(self).__name__}.backward: another thread called forward last; call "
                "forward and backward in one thread, or give each thread a copy (copy.deepcopy)."
            )

    def claim(self, method: str) -> None:
        """Guard of changes to the state or the tape: RuntimeError while another thread is in `fit`."""
        if self._turn.trainer not in (None, get_ident()):
            raise _check.objects.another_thread(f"{type(self).__name__}.{method}")

    def _read_apart(self, owner: str, given: dict[str, np.ndarray]) -> None:
        """Guard of `backward`: an error if one of these arrays shares memory with `grads`."""
        for name, array in given.items():
            if id(base_of(array)) in self._overwritten:  # 0.2 us; comparing memory takes 1 us
                _check.arrays.apart(owner, name, array, self._dweights)

    def tape(self) -> Any:
        """The cache of the last `forward` for `backward`; `restore_tape` puts it back after other calls."""
        return {name: getattr(self, name) for name in self.TAPE}

    def restore_tape(self, tape: Any) -> None:
        """Put a tape back; None for a blank one. Scratch memory belongs to the tape."""
        for name in self.TAPE:
            blank = Workspace() if name == "_workspace" else getattr(type(self), name, None)
            setattr(self, name, blank if tape is None else tape[name])

    def __getstate__(self) -> dict[str, Any]:
        passing = {*self.TAPE, *self.PASSING}
        kept = {name: value for name, value in self.__dict__.items() if name not in passing}
        return {**kept, "_params": as_views(self._params), "_grads": as_views(self._grads)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _check.objects.pickled(type(self).__name__, state, "_params", "_grads")
        self.__dict__.update(state)
        for name in self.PASSING:
            self.__dict__.pop(name, None)
        kept: tuple[list[np.ndarray | View], ...] = state["_params"], state["_grads"]
        self._hold(*(from_views(arrays) for arrays in kept))

    def __copy__(self) -> Any:
        shared = [base_of(array) for array in (*self.params, *self.grads)]
        with lifted(self.params):
            return copy.deepcopy(self, {id(array): array for array in shared})


class Layer(Holder):
    """Parameters, their gradients, and a state that can be reset."""

    dtype: np.dtype

    def __repr__(self) -> str:
        return shown(self, self._shown(), self.params)

    def _shown(self) -> dict[str, Any]:
        """The arguments that `repr` shows, by name."""
        return {}

    def reset_state(self) -> None:
        """Forget the carried state. Layers without a state do nothing."""

    def _output(self, owner: str, out: np.ndarray | None, shape: tuple, *apart: np.ndarray) -> np.ndarray:
        """The array for a result: the caller's `out`, which must not overlap `apart`, or a new one."""
        if out is None:
            return np.empty(shape, self.dtype)
        return _check.arrays.out(owner, out, shape, self.dtype, *apart)


# The precision of products: that of the parameters, or operands rounded to bfloat16.


class Precise(Layer):
    """A layer whose products can round their operands."""

    _precision: str | None = None

    @property
    def precision(self) -> str | None:
        """The precision of products: None, that of the parameters, or "bfloat16". It may be set.

        With "bfloat16", which needs float32 parameters, the operands of products are rounded to bfloat16, to
        nearest, ties to even. Sums, states, gradients and parameters stay in float32, and every sum is the
        same chain of multiply-adds as without rounding. `backward` rounds if `precision` says so when it is
        called.
        """
        return self._precision

    @precision.setter
    @in_turn
    def precision(self, value: str | None) -> None:
        self._precision = _check.values.precision(type(self).__name__, value, self.dtype)
        self._forget_precision()

    def _forget_precision(self) -> None:
        """Drop what depends on the precision."""

    @property
    def rounds(self) -> bool:
        """Whether operands of products are rounded to bfloat16."""
        return self._precision is not None
