"""Optional packages, looked for before they are needed."""

from __future__ import annotations

import importlib.util

from rnnfast import _check


def require(owner: str, extra: str, *packages: str) -> None:
    """ModuleNotFoundError, which names the extra, unless all packages are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _check.missing_package(owner, package, extra)
