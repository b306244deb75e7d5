"""The exceptions that are rnnfast's own."""


class CheckpointError(ValueError):
    """A model or run that is damaged, incomplete, not from rnnfast or not the one meant; it says why.

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
    """A model cannot be loaded, as its cell, of this name and fingerprint, is not defined in this program."""

    name = ""
    fingerprint = ""


class OtherData(CheckpointError):
    """A run cannot go on, as the data named `name` are not those it began with."""

    name = ""


class CorpusError(ValueError):
    """Text, files of text or a vocabulary that cannot be used; said before training starts.

    Examples
    --------
    >>> raise CorpusError("the text is empty")
    Traceback (most recent call last):
    rnnfast._check.errors.CorpusError: the text is empty
    """
