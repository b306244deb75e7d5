"""Write text with a model that was trained by rnnfast, without rnnfast: NumPy and ONNX Runtime do the work.

`rnnfast export` writes two files. ``model.onnx`` takes ids (batch, time) and the states of the layers, and
gives scores (batch, time, V) and the states after the last step. ``model.tokenizer.json`` says how text
becomes ids.

    rnnfast train --save runs/first
    rnnfast export runs/first model.onnx
    python examples/generate_with_onnxruntime.py model.onnx --prompt "the value of"
"""

import argparse
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import onnxruntime


def encode(tokenizer, text):
    """The ids of a text."""
    text = text.lower() if tokenizer["lower"] else text
    text = unicodedata.normalize(tokenizer["normalize"], text) if tokenizer["normalize"] else text
    for pattern, replacement in tokenizer["replace"]:
        text = re.sub(pattern, replacement, text)
    ids = {token: index for index, token in enumerate(tokenizer["tokens"])}
    return [ids.get(token, tokenizer["unknown"]) for token in re.findall(tokenizer["split"], text)]


def generate(session, tokenizer, ids, length, temperature, rng):
    """Continue ids; each new id is drawn from the distribution after all ids before it."""
    names = [one.name for one in session.get_outputs()]
    states = {one.name: np.zeros((1, one.shape[1]), np.float32) for one in session.get_inputs()[1:]}
    for _ in range(length):
        scores, *after = session.run(names, {"ids": np.array([ids], np.int64), **states})
        states = dict(zip(states, after, strict=True))  # in the order of the inputs
        last = scores[0, -1].astype(np.float64)
        last[tokenizer["unknown"]] = -np.inf
        powers = np.exp((last - last.max()) / max(temperature, 1e-9))
        ids = [int(rng.choice(last.size, p=powers / powers.sum()))]
        yield ids[0]


def main(model, prompt="", length=50, temperature=0.8, seed=0):
    """Print the prompt and its continuation; returns the new ids."""
    session = onnxruntime.InferenceSession(model)
    tokenizer = json.loads(Path(model).with_suffix(".tokenizer.json").read_text(encoding="utf-8"))
    read = encode(tokenizer, prompt)
    start = [tokenizer["line_end"], *read]
    new = list(generate(session, tokenizer, start, length, temperature, np.random.default_rng(seed)))
    words = ["\n" if i == tokenizer["line_end"] else tokenizer["tokens"][i] for i in (*read, *new)]
    print(tokenizer["between"].join(words))
    return new


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write text with ONNX Runtime.")
    parser.add_argument("model", help="a file of rnnfast export")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
