"""Rows of a table: gathered forward, scatter-added backward, one by one or summed over a window of words.

The caller checks that ids are inside the table. Gradients are added in a fixed order, so that the bits depend
only on the input. Gradients of word vectors are added step by step, last step first, which is also the order
when a long text is processed in parts.
"""

from __future__ import annotations

from .._jit import kernel
from ..codegen.denormals import flush_denormals, restore_mode


@kernel
def embedding_forward(ids, W, out):
    """`out[i] = W[ids[i]]`.

    ids  (M,)    int64, rows of W
    W    (V, D)  table
    out  (M, D)  overwritten
    """
    for i in range(ids.size):
        row = W[ids[i]]
        target = out[i]
        for d in range(row.size):
            target[d] = row[d]


@kernel
def embedding_backward(ids, dout, dW):
    """`dW[ids[n, t]] += dout[n, t]`, t descending, then n ascending.

    ids   (N, T)     int64, rows of dW
    dout  (N, T, D)  gradient of the gathered rows
    dW    (V, D)     accumulated; may be a transposed view
    """
    mode_before = flush_denormals()
    N, T = ids.shape
    for t in range(T - 1, -1, -1):
        for n in range(N):
            row = dW[ids[n, t]]
            source = dout[n, t]
            for d in range(row.size):
                row[d] += source[d]
    restore_mode(mode_before)


@kernel
def context_sum_forward(ids, W, window, out):
    """`out[n, t] = W[ids[n, t]] + ... + W[ids[n, t + window - 1]]`, oldest first; an id of -1 adds nothing.

    ids  (N, T + window - 1)  int64, rows of W or -1
    W    (V, D)               table
    out  (N, T, D)            overwritten
    """
    mode_before = flush_denormals()
    N, T, D = out.shape
    for n in range(N):
        for t in range(T):
            target = out[n, t]
            for d in range(D):
                target[d] = 0
            for j in range(t, t + window):
                if ids[n, j] >= 0:
                    row = W[ids[n, j]]
                    for d in range(D):
                        target[d] += row[d]
    restore_mode(mode_before)


@kernel
def context_sum_backward(ids, dout, window, dW):
    """`dW[ids[n, j]] += dout[n, t]` for each t whose window holds j; n, then j, then t ascending.

    ids   (N, T + window - 1)  int64, rows of dW or -1
    dout  (N, T, D)            gradient of the sums
    dW    (V, D)               accumulated
    """
    mode_before = flush_denormals()
    N, T, D = dout.shape
    for n in range(N):
        for j in range(ids.shape[1]):
            if ids[n, j] >= 0:
                row = dW[ids[n, j]]
                for t in range(max(0, j - window + 1), min(T, j + 1)):
                    source = dout[n, t]
                    for d in range(D):
                        row[d] += source[d]
    restore_mode(mode_before)
