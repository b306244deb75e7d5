"""Sequences with classes from files in the `.ts` format of the UCR and UEA archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnfast import _check

_OWNER = "read_ts"


def read_ts(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """The sequences of a `.ts` file, and their classes.

    Lines after `@data` are sequences: channels apart by colons, values by commas, the class last. `?` and NaN
    are values that were not observed. Sequences may differ in length.

    Parameters
    ----------
    path : path
        A file without time stamps whose header has `@classLabel true`.

    Returns
    -------
    xs : list of ndarray (T_i, D)
        The sequences, in float64.
    labels : ndarray of str (N,)
        The class of each.

    Raises
    ------
    CorpusError
        The file cannot be used; the message names the line.
    OSError
        The file cannot be read.

    Notes
    -----
    Source: A. Bagnall and others, *The UEA multivariate time series classification archive*, 2018.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> text = "@classLabel true up down\\n@data\\n1,2,?:5,6,7:up\\n4,3:2,1:down\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "walk.ts"
    ...     _ = path.write_text(text)
    ...     xs, labels = read_ts(path)
    >>> [x.shape for x in xs], labels.tolist()
    ([(3, 2), (2, 2)], ['up', 'down'])
    """
    title = os.fspath(path)
    _check.training.readable("read_ts", path)
    lines = Path(path).read_bytes().decode("utf-8", errors="replace").splitlines()
    numbered = [
        (number, line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip("\ufeff \t").startswith(("#", "%"))
    ]
    heads = [index for index, (_, line) in enumerate(numbered) if line.lower() == "@data"]
    if not heads:
        raise _check.series.bad_file(_OWNER, title, "has no line @data, so it is no .ts file")
    classes = _classes(title, numbered[: heads[0]])
    xs, labels = [], []
    for number, line in numbered[heads[0] + 1 :]:
        *channels, label = (part.strip() for part in line.split(":"))
        if classes and label not in classes:
            shown = ", ".join(classes[:8])
            problem = f"the class must be one of those after @classLabel, {shown}, got {label!r:.40}"
            raise _check.series.bad_line(_OWNER, title, number, problem)
        xs.append(_sequence(title, number, channels))
        if xs[-1].shape[1] != xs[0].shape[1]:
            first, own = (x.shape[1] for x in (xs[0], xs[-1]))
            problem = f"must have {first} channels, as the first sequence has, got {own}"
            raise _check.series.bad_line(_OWNER, title, number, problem)
        labels.append(label)
    if not xs:
        raise _check.series.bad_file(_OWNER, title, "has no sequence after @data")
    return xs, np.array(labels)


def _classes(title: str, header: Sequence[tuple[int, str]]) -> list[str]:
    """The classes in the header; none if it does not list them."""
    found = None
    for number, line in header:
        name, *values = line.split()
        is_true = bool(values) and values[0].lower() == "true"
        if name.lower() == "@timestamps" and is_true:
            raise _check.series.bad_line(_OWNER, title, number, "files with time stamps cannot be read")
        if name.lower() == "@classlabel" and is_true:
            found = values[1:]
    if found is None:
        raise _check.series.bad_file(
            _OWNER, title, "has no line @classLabel true, so its sequences have no classes"
        )
    return found


def _sequence(title: str, number: int, channels: Sequence[str]) -> np.ndarray:
    """A sequence (T, D) from the texts of its channels."""
    values = []
    for channel in channels:
        try:
            values.append(np.array(channel.replace("?", "nan").split(","), np.float64))
        except ValueError as error:
            word = str(error).rpartition(": ")[2]
            raise _check.series.bad_line(
                _OWNER, title, number, f"values must be numbers, got {word:.40}"
            ) from None
    lengths = [len(one) for one in values]
    if not lengths or len(set(lengths)) > 1:
        problem = "needs values before its class" if not lengths else f"has channels of lengths {lengths}"
        raise _check.series.bad_line(_OWNER, title, number, problem)
    return np.stack(values, axis=1)
