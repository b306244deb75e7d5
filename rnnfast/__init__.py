"""rnnfast: recurrent networks on a CPU, compiled.

The public names are imported at their first use, as `__init__.pyi` lists them.
"""


def _bind_source_tree_kernels() -> None:
    """Make `rnnfast.kernels` importable when Python runs in the repository root, next to `kernels/`."""
    import importlib.util
    import sys
    from pathlib import Path

    if importlib.util.find_spec("rnnfast.kernels") is not None:
        return
    root = Path(__file__).resolve().parent.parent
    init = root / "kernels" / "__init__.py"
    if not (init.is_file() and (root / "pyproject.toml").is_file()):
        return
    spec = importlib.util.spec_from_file_location(
        "rnnfast.kernels", init, submodule_search_locations=[str(init.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rnnfast.kernels"] = module
    spec.loader.exec_module(module)
    globals()["kernels"] = module


_bind_source_tree_kernels()
del _bind_source_tree_kernels

__version__ = "0.1.0"

# On request only: they need other packages, or are the book's star import.
_HIDDEN = {"diagnostics", "interop", "sklearn", "time_layers", "torch"}


def _modules() -> dict[str, str]:
    """The module of each public name."""
    import re
    from pathlib import Path

    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return {name: module for module, name in re.findall(r"^from (\S+) import (\w+) as", stub, re.MULTILINE)}


_MODULE_OF = _modules()
__all__ = sorted(_MODULE_OF.keys() - _HIDDEN)


def __getattr__(name: str) -> object:
    """Import a public name."""
    import importlib

    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'rnnfast' has no attribute {name!r}")
    if module == "rnnfast":
        return importlib.import_module(f"rnnfast.{name}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
