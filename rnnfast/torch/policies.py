"""Recurrent policies of sb3-contrib: episodes that begin inside a batch, in one call."""

from __future__ import annotations

from typing import Any

import torch

from rnnfast.torch.calls import call


def accelerate_policy(policy: Any) -> None:
    """Have the policy of a `sb3_contrib.RecurrentPPO` go through its LSTM in one call, on the kernels.

    Where an episode begins inside a batch, sb3-contrib goes step by step; the kernels reset the state there.
    Results are the same up to rounding. Policies on other devices, and of other dtypes, stay as they are.

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

    def process_sequence(features: Any, lstm_states: Any, episode_starts: Any, lstm: Any) -> Any:
        """Outputs (N T, H) and final states, from features (N T, D) and episode starts (N T,)."""
        if features.device.type != "cpu" or features.dtype not in (torch.float32, torch.float64):
            return original(features, lstm_states, episode_starts, lstm)
        sequences = lstm_states[0].shape[1]
        x = features.reshape(sequences, -1, lstm.input_size).transpose(0, 1)
        resets = episode_starts.reshape(sequences, -1) != 0
        out, states = call(lstm, x, lstm_states, otherwise=lstm, resets=resets)
        return out.transpose(0, 1).flatten(0, 1), states

    policy._process_sequence = process_sequence
