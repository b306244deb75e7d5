"""Recurrent policies of sb3-contrib: episodes that begin inside a batch, in one call."""

from __future__ import annotations

import functools
from typing import Any

from rnnfast.torch.calls import call
from rnnfast.torch.layers import Options
from rnnfast.torch.serving import why_not


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
