"""Kernels stay inside their scratch memory: each array of it ends at a page that cannot be read."""

import ctypes
import itertools
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not sys.platform.startswith("linux"):
    pytest.skip("needs Linux to guard pages", allow_module_level=True)

from torch_helpers import CLASSES, OURS, assert_close  # noqa: E402

from rnnfast.layers import base  # noqa: E402
from rnnfast.torch import windows  # noqa: E402

PAGE, READ_WRITE, PRIVATE_ANONYMOUS = 4096, 3, 0x22


@pytest.fixture
def guarded(monkeypatch):
    """Scratch memory that is filled with NaN and ends at a guarded page; a fault kills the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    maps = []

    def take(self, name, shape, dtype):
        nbytes = int(np.prod(shape)) * dtype.itemsize
        pages = -(-max(nbytes, 1) // PAGE) * PAGE
        start = libc.mmap(None, pages + PAGE, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
        assert libc.mprotect(start + pages, PAGE, 0) == 0
        maps.append((start, pages + PAGE))
        first = start + pages - -(-max(nbytes, 1) // 64) * 64
        array = np.frombuffer((ctypes.c_uint8 * max(nbytes, 1)).from_address(first), np.uint8)
        array[...] = 255
        return array[:nbytes].view(dtype).reshape(shape)

    monkeypatch.setattr(base.Workspace, "take", take)
    monkeypatch.setattr(
        windows.Window,
        "_planned",
        lambda self, direction, rows, words, flag, make: make(rows.order.size, rows, words, flag),
    )
    monkeypatch.setattr(windows, "idle", windows.WorkspacePool())
    yield
    for start, size in maps:
        libc.munmap(start, size)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_stay_inside_their_scratch(cell, dtype, guarded):
    sizes = itertools.product((1, 9, 16, 33), (1, 5, 17), ((1, 1), (2, 2), (3, 5)))
    for depth, width, (batch, steps) in sizes:
        module, ours = CLASSES[cell](depth, width, dtype=dtype), OURS[cell](depth, width, dtype=dtype)
        ours.load_state_dict(module.state_dict())
        x = torch.randn(steps, batch, depth, dtype=dtype, requires_grad=bool((depth + width) % 2))
        found = []
        for one in (module, ours):
            out, state = one(x)
            inputs = [*one.parameters(), *([x] if x.requires_grad else [])]
            gradients = torch.autograd.grad(out.square().sum(), inputs)
            found.append([out.detach(), *gradients])
            del out, state
        assert_close(found[1], found[0], 1e-4 if dtype is torch.float32 else 1e-10)
