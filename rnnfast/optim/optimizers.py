"""Optimizers with the book's names and formulas.

`update(params, grads)` changes the arrays in `params` in place. State belongs to positions: pass the same
parameters in the same order each time, each array once (`merge_shared` for tied weights).
"""

from __future__ import annotations

import math

import numpy as np

from rnnfast import _check
from rnnfast.kernels.elementwise import optim as kernels
from rnnfast.optim.base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: ``param -= lr * grad``.

    Parameters
    ----------
    lr : float

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch*, section 6.1.2.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.ones(2)
    >>> optim.SGD(lr=0.5).update([W], [np.array([1.0, -1.0])])
    >>> W
    array([0.5, 1.5])
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        kernels.sgd_update(grad, param.dtype.type(self.lr), param)


class Momentum(Optimizer):
    """Gradient descent with momentum: ``v = momentum * v - lr * grad; param += v``.

    Parameters
    ----------
    lr : float
    momentum : float
        At least 0 and below 1.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch*, section 6.1.4. (PyTorch multiplies the velocity by `lr` at
    the update; both forms agree while `lr` is constant.)

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.ones(2)
    >>> optim.Momentum(lr=0.1).update([W], [np.array([1.0, -1.0])])
    >>> W.round(3)
    array([0.9, 1.1])
    """

    hyperparameters = ("lr", "momentum")
    slots = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = _check.values.number_below(type(self).__name__, "momentum", momentum, 0, 1)

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        kind = param.dtype.type
        kernels.momentum_update(grad, kind(self.lr), kind(self.momentum), *state, param)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient: ``v = momentum * v - lr * grad; param += momentum * v - lr * grad``.

    Parameters
    ----------
    lr : float
    momentum : float
        At least 0 and below 1.

    Notes
    -----
    Source: Bengio, Boulanger-Lewandowski, Pascanu, *Advances in optimizing recurrent networks*, 2013,
    equation 7. The book's listing computes ``param += momentum**2 * v - (1 + momentum) * lr * grad`` with the
    new `v`, although this form needs the old `v`; rnnfast follows the equation.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.ones(2)
    >>> optim.Nesterov(lr=0.1).update([W], [np.array([1.0, -1.0])])
    >>> W.round(3)
    array([0.81, 1.19])
    """

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        kind = param.dtype.type
        kernels.nesterov_update(grad, kind(self.lr), kind(self.momentum), *state, param)


class AdaGrad(Optimizer):
    """Learning rates per element that only fall: ``h += grad**2; param -= lr * grad / (sqrt(h) + eps)``.

    Parameters
    ----------
    lr : float
    eps : float
        Added outside the root, 1e-7 as in the book (PyTorch: 1e-10).

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch*, section 6.1.5; Duchi, Hazan, Singer, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.ones(2)
    >>> optim.AdaGrad(lr=0.1).update([W], [np.array([1.0, -1.0])])
    >>> W.round(3)
    array([0.9, 1.1])
    """

    hyperparameters = ("lr", "eps")
    slots = ("h",)

    def __init__(self, lr: float = 0.01, eps: float = 1e-7) -> None:
        super().__init__(lr)
        self.eps = _check.values.number(type(self).__name__, "eps", eps, 0)

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        kind = param.dtype.type
        kernels.adagrad_update(grad, kind(self.lr), kind(self.eps), *state, param)


class RMSprop(Optimizer):
    """Learning rates per element from recent squared gradients.

    ``h = decay_rate * h + (1 - decay_rate) * grad**2; param -= lr * grad / (sqrt(h) + eps)``.

    Parameters
    ----------
    lr : float
    decay_rate : float
        At least 0 and below 1.
    eps : float
        Added outside the root, 1e-7 as in the book (PyTorch: 1e-8).

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, `common/optimizer.py`; Hinton, lecture 6e, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.ones(2)
    >>> optim.RMSprop(lr=0.1).update([W], [np.array([1.0, -1.0])])
    >>> W.round(3)
    array([0., 2.])
    """

    hyperparameters = ("lr", "decay_rate", "eps")
    slots = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99, eps: float = 1e-7) -> None:
        super().__init__(lr)
        self.decay_rate = _check.values.number_below(type(self).__name__, "decay_rate", decay_rate, 0, 1)
        self.eps = _check.values.number(type(self).__name__, "eps", eps, 0)

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        kind = param.dtype.type
        decay = self.decay_rate
        kernels.rmsprop_update(
            grad, kind(self.lr), kind(decay), kind(1 - decay), kind(self.eps), *state, param
        )


class Adam(Optimizer):
    """Momentum and learning rates per element, with bias correction.

    ``m += (1 - beta1) * (grad - m); v += (1 - beta2) * (grad**2 - v);``
    ``lr_t = lr * sqrt(1 - beta2**t) / (1 - beta1**t); param -= lr_t * m / (sqrt(v) + eps)``, t from 1.

    Parameters
    ----------
    lr, beta1, beta2 : float
        The betas are at least 0 and below 1.
    eps : float
        1e-7, added to the uncorrected ``sqrt(v)``, as in the book. PyTorch and `AdamW` add 1e-8 to the
        corrected root.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch*, section 6.1.6; Kingma, Ba, 2015, the form at the end of
    section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.zeros(2)
    >>> optimizer = optim.Adam(lr=0.1)
    >>> optimizer.update([W], [np.array([5.0, -0.01])])
    >>> W.round(3)
    array([-0.1,  0.1])
    """

    hyperparameters: tuple[str, ...] = ("lr", "beta1", "beta2", "eps")
    slots = ("m", "v")

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-7
    ) -> None:
        super().__init__(lr)
        owner = type(self).__name__
        self.beta1 = _check.values.number_below(owner, "beta1", beta1, 0, 1)
        self.beta2 = _check.values.number_below(owner, "beta2", beta2, 0, 1)
        self.eps = _check.values.number(owner, "eps", eps, 0)

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        self._adam(grad, state, param, self.eps, 1.0)

    def _adam(
        self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray, eps: float, keep: float
    ) -> None:
        """One update with `eps` added to the uncorrected root; `keep` first scales the parameter."""
        kind = param.dtype.type
        step = self.lr * self._correction() / (1 - self.beta1**self.steps)
        kernels.adam_update(
            grad, kind(step), kind(1 - self.beta1), kind(1 - self.beta2), kind(eps), kind(keep), *state, param
        )

    def _correction(self) -> float:
        """The factor from the corrected ``sqrt(v)`` to the uncorrected one."""
        return math.sqrt(1 - self.beta2**self.steps)


class AdamW(Adam):
    """Adam with a weight decay that does not enter the moments.

    ``param -= lr * (m_hat / (sqrt(v_hat) + eps) + decay * param)``, where
    ``m_hat = m / (1 - beta1**t)`` and ``v_hat = v / (1 - beta2**t)`` are the corrected means; `decay` is
    `weight_decay`, and applies to every parameter. Defaults and the place of `eps` are as in PyTorch.

    Parameters
    ----------
    lr, beta1, beta2, eps : float
        As in `Adam`, but `eps` (1e-8) is added to the corrected root.
    weight_decay : float
        At least 0.

    Notes
    -----
    Source: Loshchilov, Hutter, *Decoupled weight decay regularization*, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.ones(2)
    >>> optim.AdamW(lr=0.1).update([W], [np.array([1.0, -1.0])])
    >>> W.round(3)
    array([0.899, 1.099])
    """

    hyperparameters = ("lr", "beta1", "beta2", "eps", "weight_decay")

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps)
        self.weight_decay = _check.values.number(type(self).__name__, "weight_decay", weight_decay, 0)

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        self._adam(grad, state, param, self.eps * self._correction(), 1 - self.lr * self.weight_decay)
