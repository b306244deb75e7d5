"""Ships the folder kernels/ as rnnfast.kernels; everything else is in pyproject.toml.

An editable install puts the repository on Python's path instead, where `rnnfast/__init__.py` finds kernels/.
With a package that is mapped to another folder, setuptools would install an import hook, and a hook loses to
any folder that has the name of the package: `import rnnfast` beside a clone would find the clone's folder.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithKernels(build_py):
    """Adds the package of compiled code to what is copied."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if not self.editable_mode:
            folders = [file.parent for file in sorted(Path("kernels").rglob("__init__.py"))]
            kernels = {f"rnnfast.{'.'.join(folder.parts)}": str(folder) for folder in folders}
            self.packages = [*self.packages, *kernels]
            self.package_dir = {**self.package_dir, **kernels}


setup(cmdclass={"build_py": BuildWithKernels})
