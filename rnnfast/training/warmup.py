"""Compile every kernel ahead of time, by using everything once on tiny arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnfast import _check, heads, optim
from rnnfast.cells import Cell
from rnnfast.kernels.codegen import activations
from rnnfast.kernels.elementwise import noise
from rnnfast.kernels.elementwise.fingerprint import BLOCK, fingerprint
from rnnfast.kernels.team import tree
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.base import Workspace
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.loss import TimeSoftmaxWithLoss
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.rnn import TimeRNN
from rnnfast.layers.window import Blocks
from rnnfast.models import CBOWLM, RNNLM, SequenceRegressor


def warmup(dtype: np.typing.DTypeLike = np.float32, cells: Sequence[Cell] | None = None) -> None:
    """Compile every kernel for one dtype, so that no later call waits for the compiler.

    The compiled kernels are cached on disk for later processes. The first call takes half a minute to a
    minute, later ones a fraction of a second.

    Parameters
    ----------
    dtype : float32 or float64
    cells : sequence of Cell, optional
        The cells to compile; each takes several seconds. By default, the cells of `TimeRNN`, `TimeLSTM` and
        `TimeGRU`. Other cells, and products in bfloat16, are compiled at their first use.

    Raises
    ------
    TypeError
        `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> import rnnfast
    >>> rnnfast.warmup(np.float32)
    """
    kind = _check.arrays.float_dtype("warmup", dtype)
    rng = np.random.default_rng(0)
    xs = np.array([[2, 3]])
    if cells is None:
        cells = [layer.from_sizes(1, 1).cell for layer in (TimeRNN, TimeLSTM, TimeGRU)]
    models = (
        RNNLM(4, 3, 3, dropout=0.5, rng=rng, dtype=kind),
        RNNLM(4, 3, 3, tied=True, rng=rng, dtype=kind),
        *(RNNLM(4, 3, 3, cell=cell, rng=rng, dtype=kind) for cell in cells),
        CBOWLM(4, 3, rng=rng, dtype=kind),
    )
    for model in models:
        for ids in (xs, np.repeat(xs, 4, axis=0)):  # fewer rows than words, and more
            model.reset_state()
            model.forward(ids, ids)
            model.backward()
        model.losses(ids, ids)
        model.predict(ids)
    for rows in (1, 4):  # in each of two blocks
        model, ids = models[-2], np.repeat(xs, 2 * rows, axis=0)
        model.reset_state()
        model.forward(ids, ids, blocks=Blocks(np.array([0, rows, 2 * rows]), least=rows))
        model.backward()
    for head in (heads.squared, heads.student_t, heads.categorical(2)):  # those of forecasts and classes
        regressor = SequenceRegressor(3, 3, 1, head=head, rng=rng, dtype=kind)
        regressor.forward(np.ones((1, 2, 3), kind), np.ones((1, 1), kind))
        regressor.backward()
    for head in (heads.gaussian, heads.student_t, heads.negative_binomial):
        head.sample(np.zeros((1, len(head.parameters))), 0, np.zeros(1, np.int64), 0, 1)
    _use_layers(kind, rng, cells)
    _use_optimizers(kind)


def _use_layers(kind: np.dtype, rng: np.random.Generator, cells: Sequence[Cell]) -> None:
    """Use the layers that the models above do not use."""
    x = np.ones((1, 2, 3), kind)
    for cell in cells:
        cell.layer(3, 3, rng=rng, dtype=kind).step(x[:, 0])
    dropout = TimeDropout(0.5, rng=rng)
    dropout.backward(dropout.forward(x))
    embedding = TimeEmbedding(np.ones((4, 3), kind))
    embedding.backward(embedding.forward(np.array([[2, 3]])), add_to=np.zeros((3, 4), kind).T)
    affine = TimeAffine(np.ones((3, 4), kind), np.zeros(4, kind))
    loss = TimeSoftmaxWithLoss()
    loss.forward(affine.forward(x), np.array([[1, 2]]))
    affine.backward(loss.backward())
    for draw in (noise.normal_forward, noise.bernoulli_forward):
        draw(0, 0, 0, 0, 0.5, np.empty((1, 2, 3), kind))
    tree.tree_sum(np.ones((2, 3), kind))
    fingerprint(np.zeros(3, np.uint32), np.zeros((2, BLOCK), np.uint64), np.empty((1, 2), np.uint64))
    flags = np.zeros((1, tree.FLAGS), np.int64)
    tree.ranks_met(0, 1, flags)
    window, scratch = Workspace().take("window", (1, 2, 64), kind), np.empty((1, tree.BLOCK), kind)
    tree.tree_exchange(0, 0, flags, window, np.ones(3, kind), scratch)
    for forward in (activations.exp_forward, activations.sigmoid_forward, activations.tanh_forward):
        forward(np.zeros(3, kind), np.empty(3, kind))


def _use_optimizers(kind: np.dtype) -> None:
    """Use all update rules, clipping and the health check."""
    params = [np.ones(3, kind)]
    for name in ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"):  # AdamW's kernel is Adam's
        getattr(optim, name)().update(params, [np.ones(3, kind)])
    optim.clip_by_norm(params, 1.0)
    optim.clip_by_value(params, 0.5)
    optim.all_finite(params)


def cache_folder() -> Path | None:
    """The folder of the compiled kernels; None if they are not cached."""
    path = getattr(getattr(activations.exp_forward, "stats", None), "cache_path", None)
    return None if path is None else Path(path)
