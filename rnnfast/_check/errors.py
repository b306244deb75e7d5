"""The exceptions that rnnfast defines."""


class CheckpointError(ValueError):
    """A saved model or run is damaged, incomplete, not from rnnfast, or not the expected one.

    Examples
    --------
    >>> import pathlib, tempfile, rnnfast
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.safetensors")
    ...     _ = path.write_bytes(b"else")
    ...     try:
    ...         rnnfast.RNNLM.load(path)
    ...     except rnnfast.CheckpointError as error:
    ...         print("too short for a safetensors file" in str(error))
    True
    """


class CellMissing(CheckpointError):
    """A model cannot be loaded: this program does not define its cell, named by `name` and `fingerprint`."""

    name = ""
    fingerprint = ""


class OtherData(CheckpointError):
    """A run cannot continue: the data named `name` differ from the data it began with."""

    name = ""


class CorpusError(ValueError):
    """A text, a text file or a vocabulary cannot be used; raised before training starts.

    Examples
    --------
    >>> raise CorpusError("the text is empty")
    Traceback (most recent call last):
    rnnfast._check.errors.CorpusError: the text is empty
    """
