"""What holds while Numba compiles a kernel: no garbage collection, and Ctrl-C waits."""

import gc
import signal

import numba
import pytest
from helpers import needs_jit
from rnnfast.kernels import _jit


@needs_jit
def test_nothing_is_collected_while_a_function_is_compiled_and_collecting_goes_on_afterwards():
    seen = []

    class Watch(numba.core.event.Listener):
        def on_start(self, event):
            seen.append(gc.isenabled())

        def on_end(self, event):
            pass

    assert gc.isenabled()
    with numba.core.event.install_listener("numba:compile", Watch()):
        _jit.inner(lambda x: x + 1)(1)
        with pytest.raises(numba.core.errors.TypingError):
            _jit.inner(lambda x: x.no_such_thing)(1)
    assert seen == [False, False]
    assert gc.isenabled()


@needs_jit
def test_ctrl_c_waits_until_a_function_is_compiled():
    class Interrupt(numba.core.event.Listener):
        def on_start(self, event):
            signal.raise_signal(signal.SIGINT)

        def on_end(self, event):
            pass

    function = _jit.inner(lambda x: x + 2)
    with numba.core.event.install_listener("numba:compile", Interrupt()), pytest.raises(KeyboardInterrupt):
        function(1)
    assert len(function.nopython_signatures) == 1
    assert function(1) == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
