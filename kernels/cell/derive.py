"""Reverse-mode differentiation of formulas: the gradient of a graph of `expression` as another graph.

Derivatives use the results of operations if possible, s (1 - s) for a sigmoid s, so that the backward pass
need not compute the sigmoid again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .node import Node, in_order


def _divided(y: Node, d: Node, a: Node, b: Node) -> tuple:
    quotient = d / b
    return quotient, -(quotient * y)


def _where(y: Node, d: Node, condition: Node, chosen: Node, other: Node) -> tuple:
    graph = y.graph
    return None, graph.apply("select", condition, d, 0), graph.apply("select", condition, 0, d)


def _absolute(y: Node, d: Node, a: Node) -> tuple:
    graph = y.graph
    return (graph.apply("select", a > 0, d, graph.apply("select", a < 0, -d, 0)),)


def _extreme(sign: int) -> Callable[..., tuple]:
    """The larger (1) or smaller (-1) of two gets the gradient; equal values get half each."""

    def rule(y: Node, d: Node, a: Node, b: Node) -> tuple:
        graph, half = y.graph, 0.5 * d
        first, second = (a > b, b > a) if sign > 0 else (b > a, a > b)
        to_a = graph.apply("select", first, d, graph.apply("select", second, 0, half))
        to_b = graph.apply("select", second, d, graph.apply("select", first, 0, half))
        return to_a, to_b

    return rule


# The gradient of each operand of y from d, the gradient of y; None for none.
_RULES: dict[str, Callable[..., tuple]] = {
    "add": lambda y, d, a, b: (d, d),
    "sub": lambda y, d, a, b: (d, -d),
    "mul": lambda y, d, a, b: (d * b, d * a),
    "div": _divided,
    "neg": lambda y, d, a: (-d,),
    "abs": _absolute,
    "select": _where,
    "sigmoid": lambda y, d, a: (d * (y * (1 - y)),),
    "tanh": lambda y, d, a: (d * (1 - y * y),),
    "exp": lambda y, d, a: (d * y,),
    "log": lambda y, d, a: (d / a,),
    "sqrt": lambda y, d, a: (0.5 * d / y,),
    "softplus": lambda y, d, a: (d * y.graph.apply("sigmoid", a),),
    "relu": lambda y, d, a: (y.graph.apply("select", y > 0, d, 0),),
    "step": lambda y, d, a: (d * y.slope,),
    "stop": lambda y, d, a: (None,),
    "maximum": _extreme(1),
    "minimum": _extreme(-1),
}


def gradient(outputs: Iterable[tuple[Node, Node]], wanted: Iterable[Node]) -> list[Node | None]:
    """The gradient of each wanted node, or None, from (output, its gradient) pairs."""
    arrived: dict[Node, Node] = {}
    for output, d in outputs:
        arrived[output] = _sum(arrived.get(output), d)
    wanted = list(wanted)
    leads = _leads_to(arrived, wanted)
    for y in reversed(in_order(arrived)):
        if y in arrived and y.op in _RULES and y in leads:
            for a, d in zip(y.args, _RULES[y.op](y, arrived[y], *y.args), strict=True):
                if d is not None and a in leads:
                    arrived[a] = _sum(arrived.get(a), d)
    return [arrived.get(node) for node in wanted]


def _leads_to(outputs: Iterable[Node], wanted: Iterable[Node]) -> set[Node]:
    """The wanted nodes and all nodes computed from them."""
    leads = set(wanted)
    for node in in_order(outputs):
        if node.op not in ("input", "constant", "stop") and not leads.isdisjoint(node.args):
            leads.add(node)
    return leads


def _sum(total: Node | None, term: Node) -> Node:
    """total + term; products with a common factor become one product: d x - d y = d (x - y)."""
    if total is None:
        return term
    for (a, b), (c, e) in ((x, y) for x in _factors(total) for y in _factors(term)):
        if a is c and a.op != "constant":
            return a * _plus(b, e)
    return _plus(total, term)


def _plus(a: Node, b: Node) -> Node:
    """a + b, as a difference if one is a negation."""
    if b.op == "neg":
        return a - b.args[0]
    return b - a.args[0] if a.op == "neg" else a + b


def _factors(node: Node) -> list[tuple[Node, Node]]:
    """The ways to write a node as a product of two."""
    if node.op == "neg":
        return [(a, -b) for a, b in _factors(node.args[0])]
    if node.op == "mul":
        a, b = node.args
        return [(a, b), (b, a)]
    return []
