"""The compile options and the mended disk cache, on a small package that uses a copy of the real `_jit.py`.

Each run is a process of its own, because what is tested is what one process leaves to the next.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from rnnfast.kernels import _jit

FILES = {
    "__init__.py": "",
    "b.py": """
        from llvmlite import ir
        from numba import types
        from numba.core import cgutils

        from ._jit import inner, intrinsic, library

        SCALE = 2.0

        @inner
        def scaled(x):
            return SCALE * x

        half = inner(lambda x: np.float32(0.5) * x)

        FUNCTION = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()])

        @intrinsic(lambda like: None)
        def define(typing_context, like):
            def codegen(context, builder, signature, arguments):
                function = ir.Function(builder.module, FUNCTION, "small_triple")
                inside = ir.IRBuilder(function.append_basic_block())
                inside.ret(inside.fmul(function.args[0], ir.Constant(ir.DoubleType(), 3.0)))
                return context.get_dummy_value()

            return types.void(like), codegen

        @library
        def carrier(like):
            define(like)

        @intrinsic(lambda x: 3.0 * x)
        def triple(typing_context, x):
            def codegen(context, builder, signature, arguments):
                carrier.get_compile_result(types.void(types.float64))
                function = cgutils.get_or_insert_function(builder.module, FUNCTION, "small_triple")
                return builder.call(function, arguments)

            return types.float64(types.float64), codegen
        """,
    "a.py": """
        from ._jit import kernel
        from .b import carrier, half, scaled, triple

        @kernel
        def total(x):
            result = scaled(x[0])
            for i in range(1, x.size):
                result += scaled(x[i])
            return result

        @kernel
        def pick(x, index):
            return x[index]

        @kernel
        def thrice(x):
            return triple(x)
        """,
}

RUN = """
import json, sys, warnings
import numpy as np
%s
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from small import _jit, a
%s
def count(counter):
    return sum(counter.values())
def report(function):
    stats = getattr(function, "stats", None)
    return stats and {"hits": count(stats.cache_hits), "misses": count(stats.cache_misses)}
print(json.dumps({
    "value": value,
    "total": report(a.total), "pick": report(a.pick),
    "thrice": report(a.thrice), "carrier": report(a.carrier),
    "stamps": _jit._source_stamp.cache_info().misses,
    "warnings": [[w.category.__name__, str(w.message)] for w in caught],
}))
"""

TOTAL = "value = float(a.total(np.arange(4.0)))"  # 12 with SCALE = 2
HIT, MISS = {"hits": 1, "misses": 0}, {"hits": 0, "misses": 1}


class Package:
    """The small package in a folder of its own, beside the cache directory of its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "small"
        self.cache = folder / "cache"
        self.source.mkdir(parents=True)
        shutil.copy(_jit.__file__, self.source / "_jit.py")
        for name, text in FILES.items():
            text = "\n".join(line[8:] for line in text.splitlines())
            (self.source / name).write_text("import numpy as np\n" + text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.source / name).read_text()
        assert old in text
        (self.source / name).write_text(text.replace(old, new))

    def files(self, ending: str) -> list[Path]:
        return sorted(self.cache.rglob(f"a.total*{ending}"))

    def run(self, body: str = TOTAL, before: str = "", **settings: str) -> dict:
        """What a new process reports that imports the package and runs `body`, which sets `value`."""
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "COV_CORE", "COVERAGE"))
        }
        environment |= {"NUMBA_CACHE_DIR": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1", **settings}
        done = subprocess.run(
            [sys.executable, "-c", RUN % (before, body)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def package(tmp_path):
    return Package(tmp_path / "package")


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A package with `total` in its cache; each user works on the files as `restored` puts them back."""
    package = Package(tmp_path_factory.mktemp("jit") / "package")
    assert package.run()["total"] == MISS
    shutil.copytree(package.cache, package.folder / "kept")
    return package


@pytest.fixture
def restored(warm):
    shutil.rmtree(warm.cache)
    shutil.copytree(warm.folder / "kept", warm.cache)
    return warm


def test_unchanged_files_are_served_from_the_cache_and_hashed_once(restored):
    actual = restored.run()
    assert actual["value"] == 12
    assert actual["total"] == HIT
    assert actual["stamps"] == 1
    assert actual["warnings"] == []


def test_an_edit_of_the_file_of_the_callee_recompiles_the_caller_in_another_file(package):
    assert package.run()["value"] == 12
    package.edit("b.py", "SCALE = 2.0", "SCALE = 5.0")
    actual = package.run()
    assert actual["value"] == 30
    assert actual["total"] == MISS
    assert package.run()["total"] == HIT
    assert len(package.files(".nbc")) == 1, "the stale data file must be overwritten"


def test_an_edit_is_seen_even_where_the_stamp_of_the_index_cannot_be_set(package):
    before = """
from numba.core.caching import IndexDataCacheFile
IndexDataCacheFile._source_stamp = property(lambda self: "fixed", lambda self, stamp: None)
"""
    assert package.run(before=before)["value"] == 12
    package.edit("b.py", "SCALE = 2.0", "SCALE = 5.0")
    assert package.run(before=before)["value"] == 30


def test_checked_and_unchecked_code_never_share_an_entry(package):
    body = """
try:
    value = float(a.pick(np.arange(10.0)[:3], 7))
except IndexError:
    value = "IndexError"
"""
    unchecked, checked = {}, {"NUMBA_BOUNDSCHECK": "1"}
    for settings, expected in ((unchecked, 7.0), (checked, "IndexError")):
        for state in (MISS, HIT):
            actual = package.run(body, **settings)
            assert actual["value"] == expected
            assert actual["pick"] == state
    assert package.run(body)["pick"] == HIT, "the checked run must not drop the entry of the unchecked one"


def test_every_setting_of_the_key_exists_in_numba():
    assert [name for name in _jit.CODE_SETTINGS if not hasattr(numba.config, name)] == []


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _empty(content: bytes) -> bytes:
    return b""


def _garbage(content: bytes) -> bytes:
    return b"\x80\x04not a pickle" * 10


def _flipped(content: bytes) -> bytes:
    """One bit of the machine code, which Numba itself would load and run."""
    start = content.index(b"\x7fELF") if b"\x7fELF" in content else len(content) // 4
    place = start + (len(content) - start) // 4
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("ending", "damage"),
    [(".nbc", _cut), (".nbc", _flipped), (".nbi", _cut), (".nbi", _empty), (".nbi", _garbage)],
)
def test_a_damaged_entry_is_compiled_anew_once_and_replaced(restored, ending, damage):
    (file,) = restored.files(ending)
    file.write_bytes(damage(file.read_bytes()))
    for state in (MISS, HIT):
        actual = restored.run()
        assert actual["value"] == 12
        assert actual["total"] == state
        assert actual["warnings"] == []


def test_data_files_swapped_by_two_writers_are_not_mistaken(package):
    both = "value = [float(a.total(np.arange(4, dtype=d))) for d in (np.float32, np.float64)]"
    assert package.run(both)["value"] == [12, 12]
    first, second = package.files(".nbc")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert package.run(both)["value"] == [12, 12]


def _nowhere(package: Package) -> dict[str, str]:
    """Settings under which no cache directory can be made, whoever runs this: each would lie below a file."""
    file = package.folder / "file"
    file.write_text("")
    (package.source / "__pycache__").write_text("")
    names = ("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")
    return {name: str(file / "below") for name in names}


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="the user's cache directory is found otherwise"
)
def test_without_a_writable_directory_kernels_are_compiled_and_one_warning_says_so(package):
    actual = package.run(**_nowhere(package))
    assert actual["value"] == 12
    assert actual["total"] == MISS
    ((category, message),) = actual["warnings"]
    assert category == "RuntimeWarning"
    assert "no directory" in message
    assert "NUMBA_CACHE_DIR" in message


def test_a_cache_directory_that_vanishes_after_import_does_not_fail_the_call(package):
    before = "import os, shutil"
    body = f"""
cache = {str(package.cache)!r}
shutil.rmtree(cache)
open(cache, "w").close()
{TOTAL}
"""
    assert package.run(body, before)["value"] == 12


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("danger", ["writable by all", "owned by another user"])
def test_a_directory_that_other_users_can_write_is_neither_read_nor_written(restored, danger):
    (index,) = restored.files(".nbi")
    if danger == "writable by all":
        index.parent.chmod(0o777)
    elif os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    else:
        os.chown(index.parent, 65534, 65534)
    before = index.stat().st_mtime_ns
    actual = restored.run("value = float(a.total(np.arange(4, dtype=np.float32)) + a.total(np.arange(4.0)))")
    assert actual["value"] == 24
    assert actual["total"] == {"hits": 0, "misses": 2}
    assert index.stat().st_mtime_ns == before
    ((category, message),) = actual["warnings"]
    assert category == "RuntimeWarning"
    assert str(index.parent) in message


def test_a_numba_with_another_cache_still_compiles(package):
    before = """
from numba.core.caching import Cache
begin = Cache.__init__
def changed(self, function):
    begin(self, function)
    self.files = self.__dict__.pop("_cache_file")
Cache.__init__ = changed
"""
    actual = package.run(before=before)
    assert actual["value"] == 12
    ((_, message),) = actual["warnings"]
    assert "is not known" in message


def test_a_kernel_from_the_cache_finds_the_library_it_calls_by_symbol(package):
    for state in (MISS, HIT):
        actual = package.run("value = float(a.thrice(2.0))")
        assert actual["value"] == 6
        assert actual["thrice"] == actual["carrier"] == state
    for file in package.cache.rglob("b.carrier*"):
        file.unlink()
    actual = package.run("value = float(a.thrice(2.0))")
    assert actual["value"] == 6
    assert (actual["thrice"], actual["carrier"]) == (HIT, MISS)


def test_without_jit_kernels_are_plain_functions_and_twins_run(package):
    body = """
from small import b
from types import FunctionType
functions = (a.total, a.pick, a.thrice, b.scaled, b.carrier, b.triple, b.half, b.define)
value = [all(type(f) is FunctionType for f in functions), a.total(np.arange(4.0)), a.thrice(2.0)]
value += [float(b.half(np.float32(3))), str(b.half(np.float32(3)).dtype), str(b.half(np.float64(3)).dtype)]
"""
    actual = package.run(body, NUMBA_DISABLE_JIT="1")
    assert actual["value"] == [True, 12, 6, 1.5, "float32", "float64"]
    assert actual["warnings"] == []
    assert not package.cache.exists()


def _first(x):
    return x[0]


def test_a_kernel_is_the_plain_dispatcher_of_numba():
    expected = type(numba.njit(nogil=True)(_first))
    assert type(_jit.kernel(_first)) is expected
    assert type(_jit.inner(_first)) is expected
