"""What an installation contains, and that rnnfast is found where users run it."""

import importlib.metadata
import importlib.resources
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import rnnfast

ROOT = Path(__file__).resolve().parents[2]


def pyproject():
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def python(code, folder, *path):
    """Run code in a new interpreter that sees the libraries but no installed rnnfast (-S: no .pth files are
    read)."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, path), sysconfig.get_path("purelib")]),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("inside", [True, False], ids=["in the repository", "elsewhere"])
def test_the_source_tree_works_without_installation(inside, tmp_path):
    code = """
import rnnfast, rnnfast.kernels, rnnfast.kernels.recurrence.recurrence, rnnfast.layers.streaming
print(rnnfast.__file__, rnnfast.kernels.__file__)
print(rnnfast.layers.streaming.time_loop is rnnfast.kernels.recurrence.recurrence.time_loop)
"""
    actual = python(code, ROOT if inside else tmp_path, ROOT).split()
    expected = [str(ROOT / "rnnfast" / "__init__.py"), str(ROOT / "kernels" / "__init__.py"), "True"]
    assert actual == expected


@pytest.mark.parametrize(
    "command", [["-c", "import rnnfast; print(rnnfast.TimeRNN)"], ["-m", "rnnfast", "--version"]]
)
def test_a_folder_that_happens_to_have_the_name_does_not_hide_the_package(command, tmp_path):
    """As with the folder that holds a clone as working folder."""
    (tmp_path / "rnnfast").mkdir()
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_sub_modules_are_imported_when_they_are_first_used():
    code = """
import sys, rnnfast
assert "rnnfast.diagnostics" not in sys.modules
print(rnnfast.diagnostics.truncation_bias.__name__, rnnfast.time_layers.TimeRNN.__name__)
rnnfast.nothing
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["truncation_bias", "TimeRNN"]
    assert "module 'rnnfast' has no attribute 'nothing'" in done.stderr


@pytest.mark.parametrize(
    ("module", "blocked", "message"),
    [
        (
            "sklearn",
            'sys.modules["sklearn"] = None',
            "rnnfast.sklearn needs scikit-learn: pip install 'rnnfast[sklearn]'",
        ),
        (
            "sklearn",
            "sys.modules.update({name: types.ModuleType(name) for name in NAMES})",
            "rnnfast.sklearn needs scikit-learn 1.6 or newer.",
        ),
    ],
)
def test_estimators_without_their_package_are_one_sentence(module, blocked, message):
    code = f"""
import sys, types
NAMES = ("sklearn", "sklearn.utils", "sklearn.utils.validation")
{blocked}
import rnnfast
import rnnfast.{module}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.split(": ", 1)[0] in ("ImportError", "ModuleNotFoundError")
    assert last.split(": ", 1)[1].startswith(message)


def test_kernels_are_loaded_once():
    """As rnnfast.kernels, never as the folder's bare name, which is importable in the repository root."""
    code = """
import importlib, pkgutil, sys
import rnnfast, rnnfast.kernels
OTHERS = ("rnnfast.sklearn", "rnnfast.torch")
for package in (rnnfast, rnnfast.kernels):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and not module.name.startswith(OTHERS):
            importlib.import_module(module.name)
assert "kernels" not in sys.modules
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
files = [file for file in files if "kernels" in file]
assert len(files) == len(set(files)) > 10, files
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_package_is_marked_as_typed():
    assert (importlib.resources.files("rnnfast") / "py.typed").is_file()


def test_the_version_is_the_same_everywhere():
    expected = re.search(r'^version = "(.*)"$', pyproject(), re.MULTILINE)[1]
    assert rnnfast.__version__ == expected
    assert importlib.metadata.version("rnnfast") == expected
    assert (
        re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
        == expected
    )


def test_the_core_needs_two_packages():
    listed = re.search(r"^dependencies = \[(.*?)\]", pyproject(), re.DOTALL | re.MULTILINE)[1]
    assert re.findall(r'"(\w+)', listed) == ["numpy", "numba"]


def commands_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("python3 -m venv .venv && ")]


def test_the_readme_has_one_line_that_trains_and_one_that_tests():
    train, test = commands_of_the_readme()
    assert train.endswith(".venv/bin/rnnfast train")
    assert test.endswith(".venv/bin/python -m pytest")


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f'readme_test_command="{commands_of_the_readme()[1]}"' in script


def test_the_jobs_of_ci_are_named_where_people_look():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    jobs = set(re.findall(r"^job_(\w+)\(\)", script, re.MULTILINE))
    assert jobs == set(re.search(r"^# Jobs: ([\w ]+)\.", script, re.MULTILINE)[1].split())
    order = re.search(r'^order="([\w ]+)"', script, re.MULTILINE)[1].split()
    assert jobs == {*order, *re.findall(r"^in_lane run_job (\w+)", script, re.MULTILINE)}
    usual = re.search(r"wanted=.*:-([\w ]+)}", script)[1]
    assert jobs - set(usual.split()) == {"arm64"}
    assert f"some of it: {usual}\n" in guide
    assert ".ci/run arm64" in guide


def test_each_dependency_has_one_lowest_version():
    """The job `oldest` installs just these."""
    text = pyproject()
    project = text[text.index("\ndependencies = ") : text.index("\n[project.scripts]")]
    asked = [name for name in re.findall(r'"([^"]+)"', project) if not name.startswith("rnnfast")]
    lowest = dict(re.split(">=|==", re.sub(r"\[.*\]", "", name)) for name in asked)
    assert len(lowest) == len(asked)


def test_pinned_tools_have_one_version():
    """The same ruff and mypy in pyproject.toml, which .ci/run installs, and in the hooks before a commit."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    for tool in ("ruff", "mypy"):
        pins = set(re.findall(rf"{tool}==([\d.]+)", pyproject() + hooks))
        assert len(pins) == 1
        assert f"{tool}==" in hooks
    lowest = re.findall(r'"(\w+>=[\d.]+)"', hooks)
    assert lowest
    assert [requirement for requirement in lowest if f'"{requirement}"' not in pyproject()] == []


@pytest.mark.parametrize("name", ["run", "arm64"])
def test_the_ci_scripts_can_be_executed(name):
    path = ROOT / ".ci" / name
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
