"""A head: the parameters of a prediction, and the loss of a target, as a formula without branches.

    loss = formula(y_1, ..., y_P, t)

The output layer computes the P parameters of each output, and `affine_loss` the losses with their gradients,
which `derive` derives. An output sees only its own parameters and its own target. The loss of classes,
`Softmax`, is written by hand for any number of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from .derive import gradient
from .expression import Graph, contracted
from .node import FormulaError, Node
from .passes import content_of
from .schedule import Program

# Places of the operands: the parameters of an output, which its gradients replace, its target and its loss.
PARAMETERS, TARGET, LOSS = range(3)


class Head:
    """The equations of a prediction.

    Parameters
    ----------
    name : str
        Name in messages.
    formula : callable
        Takes the parameters of one output, then its target; returns the loss.

    Attributes
    ----------
    parameters : tuple of str
        The names of the parameters.
    content : str
        A digest of the formula, which names its compiled code.

    Raises
    ------
    FormulaError
        The formula cannot be compiled, or does not depend on a parameter.
    """

    def __init__(self, name: str, formula: Callable) -> None:
        *parameters, target = inspect.signature(formula).parameters
        self.name, self.parameters = name, tuple(parameters)
        graph = Graph()
        self._outputs: list[Node] = []
        inputs = [graph.input(one) for one in (*parameters, target)]
        self.loss: Node = graph.as_number(formula(*inputs))
        self._inputs = inputs
        for one, found in zip(parameters, gradient([(self.loss, graph.constant(1))], inputs), strict=False):
            if found is None:
                raise FormulaError(f"the loss of the head {name} does not depend on {one}")
            self._outputs.append(found)
        self._outputs.append(self.loss)
        self.content = content_of(self.program)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    @property
    def program(self) -> Program:
        """The pass over the outputs of a step: losses, and gradients in place of the parameters."""
        homes = [*((PARAMETERS, p) for p in range(len(self.parameters)))]
        twins = contracted(self._outputs)
        outputs = [twins[node] for node in self._outputs]
        return Program(
            tuple(zip(self._inputs, [*homes, (TARGET, 0)], strict=True)),
            tuple(zip(outputs, [*homes, (LOSS, 0)], strict=True)),
        )


class Softmax:
    """The head of K classes: its parameters are their scores, its loss is the cross-entropy.

    Parameters
    ----------
    classes : int
        K. All numbers of classes share their compiled code.
    """

    content = "softmax"

    def __init__(self, classes: int) -> None:
        self.parameters = tuple(f"score{k}" for k in range(classes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Softmax)

    def __hash__(self) -> int:
        return hash(self.content)
