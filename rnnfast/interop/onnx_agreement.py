"""An ONNX file on random input, beside the layers that it was made from."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.interop.agreement import BATCH, STEPS, agree, random_inputs
from rnnfast.interop.onnx_source import Source, Way
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.bidirectional import reversed_places


def compared(owner: str, source: Source, content: bytes, lengths: bool, show: bool) -> float:
    """The largest difference between the file in ONNX Runtime and rnnfast; ValueError if it is too large.

    The input is random, and the initial states are those after another window. Lengths differ, if the file
    takes them.
    """
    inputs = inputs_of(source, lengths)
    ours = computed(source, inputs)
    theirs = _run(content, inputs, list(ours))
    return agree(owner, "ONNX Runtime", list(ours.values()), theirs, show)


def inputs_of(source: Source, lengths: bool) -> dict[str, np.ndarray]:
    """Random inputs of the file by name."""
    rng, dtype = np.random.default_rng(0), source.dtype
    if source.words is None:
        size = source.layers[0][0].layer.input_size
        inputs = {"xs": random_inputs(size, dtype)}
    else:
        inputs = {"ids": rng.integers(len(source.words), size=(BATCH, STEPS))}
    for way in source.ways():
        shape = BATCH, STEPS, way.layer.hidden_size
        inputs |= {way.of(name): rng.random(shape).astype(dtype) for name in way.layer.given_names}
        inputs |= {way.of(state): np.zeros((BATCH, shape[2]), dtype) for state in way.layer.cell.states}
    after = computed(source, inputs)
    inputs |= {name: after[f"{name}_next"] for name in inputs if f"{name}_next" in after}
    if lengths:
        inputs["lengths"] = np.linspace(STEPS, 0, BATCH).astype(np.int32)
    return inputs


def _run(content: bytes, inputs: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(outputs, inputs)


def computed(source: Source, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the file by name, computed by rnnfast: values (N, T, ...) and final states (N, H)."""
    hs = inputs["xs"] if source.words is None else source.words[inputs["ids"]]
    states: dict[str, np.ndarray] = {}
    for both in source.layers:
        found = [_read(way, hs, inputs, reverse=bool(place)) for place, way in enumerate(both)]
        hs = np.concatenate([outputs for outputs, _ in found], axis=-1)
        for _, final in found:
            states |= final
    if source.output is None:
        return {"hs": hs, **states}
    scores = TimeAffine(*source.output).forward(hs)
    formulas = None if source.head is None else source.head.formulas()
    if source.head is None or formulas is None:
        return {"scores": scores, **states}
    return {**source.head.values(scores), **states}


def _read(
    way: Way, xs: np.ndarray, inputs: dict[str, np.ndarray], reverse: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The outputs (N, T, H) of a layer in one direction, in the order of time, and its final states."""
    layer, (batch, steps, _) = way.alone(xs.dtype).layer, xs.shape
    lengths: Any = inputs.get("lengths", np.full(batch, steps))
    places: Any = reversed_places(lengths, steps) if reverse else ...
    layer.set_state(*(inputs[way.of(state)] for state in layer.cell.states))
    given = {name: inputs[way.of(name)][places] for name in layer.given_names}
    hs = layer.forward(np.ascontiguousarray(xs[places]), lengths=lengths, **given)[places]
    final = zip(layer.cell.states, layer.get_state() or (), strict=True)
    return hs, {f"{way.of(state)}_next": value for state, value in final}
