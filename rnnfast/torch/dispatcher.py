"""PyTorch's recurrent operators served by the kernels, in the dispatcher: scripts stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rnnfast.torch import serving
from rnnfast.torch.function import Options
from rnnfast.torch.layout import KINDS, untraced
from rnnfast.torch.serving import are_sizes, serve_data, serve_input, why_not

_KEYS = ("CPU", "AutogradCPU")
_library: torch.library.Library | None = None


class Enabled:
    """What `enable` returns. The end of its `with` block turns the bridge off, unless it was on before.

    Examples
    --------
    >>> import rnnfast.torch
    >>> with rnnfast.torch.enable() as enabled:
    ...     print(enabled)
    rnnfast.torch is enabled
    """

    def __init__(self, was_on: bool) -> None:
        self._was_on = was_on

    def __enter__(self) -> Enabled:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._was_on:
            disable()

    def __repr__(self) -> str:
        return "rnnfast.torch is enabled" if is_enabled() else "rnnfast.torch is disabled"


def is_enabled() -> bool:
    """Whether PyTorch's recurrent operators are served.

    Examples
    --------
    >>> import rnnfast.torch
    >>> rnnfast.torch.is_enabled()
    False
    """
    return _library is not None


def enable() -> Enabled:
    """Serve every recurrent layer of PyTorch on the CPU from now on: `torch.nn.LSTM`, `GRU` and `RNN`.

    Modules, parameters, optimizers and files stay what they are. What the kernels do not serve (other devices
    and dtypes, autocast, projections, `torch.func`, forward mode, tracing) PyTorch computes as before. For
    tensors in bfloat16 only the operands of products, the outputs and the final states are rounded to it; the
    states between steps stay in float32.

    Returns
    -------
    enabled : context manager
        ``with rnnfast.torch.enable():`` ends it at the end of the block. `disable` ends it too.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> with rnnfast.torch.enable():
    ...     out, state = torch.nn.LSTM(3, 4)(torch.zeros(5, 2, 3))
    """
    global _library
    was_on = is_enabled()
    if not was_on:
        serving.clear()
        names = [f"{name}.{overload}" for name in KINDS for overload in ("input", "data")]
        # All originals first: one that is fetched later would already be ours.
        originals = {
            (name, key): torch.library.get_kernel(f"aten::{name}", key) for name in names for key in _KEYS
        }
        library = torch.library.Library("aten", "IMPL")
        for (name, key), original in originals.items():
            library.impl(name, _override(name, original), key, with_keyset=True, allow_override=True)
        _library = library
    return Enabled(was_on)


def disable() -> None:
    """Turn `enable()` off: PyTorch's own operators are back. Accelerated models stay accelerated.

    Examples
    --------
    >>> import rnnfast.torch
    >>> _ = rnnfast.torch.enable()
    >>> rnnfast.torch.disable()
    >>> rnnfast.torch.is_enabled()
    False
    """
    global _library
    if _library is not None:
        _library._destroy()
        _library = None


def _override(operator: str, original: Any) -> Callable[..., Any]:
    """What an operator does while the bridge is enabled."""
    name, overload = operator.split(".")
    is_lstm = name == "lstm"

    def of_input(keyset: Any, x: Any, hx: Any, params: Any, *options: Any) -> Any:
        states = tuple(hx) if is_lstm else (hx,)
        chosen = Options(*options[:5])
        why = why_not(name, (x, *states), params, chosen)
        if not why and (x.dim() != 3 or x.shape[0 if options[5] else 1] != states[0].shape[1]):
            why = "shapes"
        serving.note(name, x, why)
        if why:
            return original.call_boxed(keyset, x, hx, params, *options)
        return serve_input(name, x, states, params, chosen, options[5])

    def of_data(keyset: Any, data: Any, batch_sizes: Any, hx: Any, params: Any, *options: Any) -> Any:
        states = tuple(hx) if is_lstm else (hx,)
        chosen = Options(*options[:5])
        why = why_not(name, (data, *states), params, chosen)
        if not why and not are_sizes(batch_sizes, data, states[0]):
            why = "shapes"
        serving.note(name, data, why)
        if why:
            return original.call_boxed(keyset, data, batch_sizes, hx, params, *options)
        return serve_data(name, data, batch_sizes, states, params, chosen)

    return untraced(of_input if overload == "input" else of_data)
