"""One model's recurrent layers on the kernels: `accelerate` and `restore`."""

from __future__ import annotations

import functools
import types
from typing import Any, NamedTuple

import torch

from rnnfast.torch.function import Options
from rnnfast.torch.modules import GRU, LSTM, RNN
from rnnfast.torch.operators import is_in_graph, traced
from rnnfast.torch.serving import call, why_not

_CLASSES = (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
_CELLS = (torch.nn.RNNCell, torch.nn.LSTMCell, torch.nn.GRUCell)

OURS = "a class of rnnfast.torch needs no acceleration"
CELL = "cells run in PyTorch; use torch.nn.RNN, LSTM or GRU"


class Accelerated(NamedTuple):
    """What `accelerate` did.

    Attributes
    ----------
    done : list of str
        Names of the modules that run on the kernels where these serve a call; "" is the model itself.
    left : dict of str to str
        Names of recurrent modules that stay as they are, and why.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> model = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 4), "b": torch.nn.LSTM(3, 4, proj_size=2)})
    >>> found = rnnfast.torch.accelerate(model)
    >>> found.done, found.left
    (['a'], {'b': 'the kernels have no projections (proj_size)'})
    """

    done: list[str]
    left: dict[str, str]


def forward(self: Any, input: Any, hx: Any = None) -> Any:
    """`forward` of a module of `torch.nn`, on the kernels.

    Its name is that of the method it stands for, so a pickle of the module refers to `torch.nn` only.
    """

    def plain(input: Any, hx: Any) -> Any:
        return type(self).forward(self, input, hx)

    if is_in_graph():
        return traced(self, input, hx, plain)
    return call(self, input, hx, otherwise=plain)


def accelerate(model: torch.nn.Module) -> Accelerated:
    """Run the recurrent layers of a model on the kernels.

    Classes, parameters, hooks, optimizers, state_dicts, deep copies and pickles of the model stay what they
    are. `restore` undoes it. `copy.copy` and `torch.jit.script` need a restored model: a shallow copy would
    still use the weights of the original.

    Returns
    -------
    accelerated : Accelerated
        The names of the modules that changed, and of those that did not, with the reason.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GRU(3, 4))
    >>> rnnfast.torch.accelerate(model)
    Accelerated(done=['1'], left={})
    """
    found = survey("accelerate", model)
    for name, module in model.named_modules():
        if name in found.done:
            module.__dict__["forward"] = types.MethodType(forward, module)
    return found


def survey(owner: str, model: Any) -> Accelerated:
    """What `accelerate` does to a model."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{owner}: expected a torch.nn.Module, got {type(model).__name__}.")
    done, left = [], {}
    for name, module in model.named_modules():
        if isinstance(module, RNN | LSTM | GRU):
            left[name] = OURS
        elif isinstance(module, _CELLS):
            left[name] = CELL
        elif not isinstance(module, torch.nn.RNNBase):
            continue
        elif type(module).forward not in [one.forward for one in _CLASSES]:
            left[name] = f"{type(module).__name__} has a forward of its own"
        elif module.proj_size:
            left[name] = "the kernels have no projections (proj_size)"
        elif getattr(module.forward, "__func__", None) not in (forward, type(module).forward):
            left[name] = "its forward was replaced"
        else:
            done.append(name)
    return Accelerated(done, left)


def restore(model: torch.nn.Module) -> list[str]:
    """Give the layers of a model back to PyTorch; the names of those that changed.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> model = torch.nn.Sequential(torch.nn.GRU(3, 4))
    >>> _ = rnnfast.torch.accelerate(model)
    >>> rnnfast.torch.restore(model)
    ['0']
    """
    found = []
    survey("restore", model)
    for name, module in model.named_modules():
        if getattr(module.__dict__.get("forward"), "__func__", None) is forward:
            del module.__dict__["forward"]
            found.append(name)
    return found


# Recurrent policies of sb3-contrib: episodes that begin inside a batch, in one call.


def accelerate_policy(policy: Any) -> None:
    """Have the policy of a `sb3_contrib.RecurrentPPO` go through its LSTM in one call, on the kernels.

    Where an episode begins inside a batch, sb3-contrib goes step by step; the kernels reset the state there.
    Results are the same up to rounding. Calls on other devices or of other dtypes, and under autocast, stay
    sb3-contrib's. ``del policy._process_sequence`` undoes it.

    Parameters
    ----------
    policy : sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy
        ``model.policy``, before `learn`.

    Raises
    ------
    TypeError
        It is no such policy.

    Examples
    --------
    >>> import rnnfast.torch
    >>> rnnfast.torch.accelerate_policy(None)
    Traceback (most recent call last):
    ...
    TypeError: accelerate_policy: expected a recurrent policy of sb3-contrib, got NoneType; pass model.policy.
    """
    original = getattr(policy, "_process_sequence", None)
    if original is None:
        raise TypeError(
            f"accelerate_policy: expected a recurrent policy of sb3-contrib, got {type(policy).__name__}; "
            "pass model.policy."
        )

    if getattr(original, "func", None) is not _process:
        policy._process_sequence = functools.partial(_process, original)


def _process(original: Any, features: Any, lstm_states: Any, episode_starts: Any, lstm: Any) -> Any:
    """Outputs (N T, H) and final states, from features (N T, D) and episode starts (N T,)."""
    sequences = lstm_states[0].shape[1]
    x = features.reshape(sequences, -1, lstm.input_size).transpose(0, 1)
    if why_not("lstm", (x, *lstm_states), lstm._flat_weights, Options.of(lstm)):
        return original(features, lstm_states, episode_starts, lstm)
    resets = episode_starts.reshape(sequences, -1) != 0
    out, states = call(lstm, x, lstm_states, otherwise=lstm, resets=resets)
    return out.transpose(0, 1).flatten(0, 1), states
