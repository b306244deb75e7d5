"""What `rnnfast bench` calls the processor, from texts of other machines."""

import platform
import subprocess
import sys
import types

import pytest

from rnnfast.bench.processor import processor

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model\t\t: 17
model name\t: AMD EPYC 9R14
"""
CORE = """processor\t: {}
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm
CPU implementer\t: {}
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: {}
CPU revision\t: 1

"""
OLD_PI = CORE.format(0, "0x41", "0xd03") + "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 3\n"


def arm(*cores):
    return "".join(CORE.format(number, *core) for number, core in enumerate(cores))


@pytest.mark.parametrize(
    ("cpuinfo", "board", "expected"),
    [
        (X86, None, "AMD EPYC 9R14"),
        (arm(("0x41", "0xd0c"), ("0x41", "0xd0c")), None, "ARM Neoverse N1"),
        (arm(("0x41", "0xd4f")), "some board", "ARM Neoverse V2"),
        (arm(("0x41", "0xd05"), ("0x41", "0xd0b")), None, "ARM Cortex-A55 and ARM Cortex-A76"),
        (arm(("0x61", "0x022"), ("0x61", "0x023")), None, "Apple Icestorm (M1) and Apple Firestorm (M1)"),
        (arm(("0xc0", "0xac4")), None, "Ampere-1A"),
        (arm(("0x41", "0xfff")), None, "ARM part 0xfff"),
        (arm(("0x99", "0x001")), None, "implementer 0x99 part 0x001"),
        (OLD_PI, None, "ARM Cortex-A53"),
        ("Hardware\t: BCM2835\n", None, "BCM2835"),
        (arm(("?", "0xd0c")), "Raspberry Pi 5 Model B Rev 1.0\0", "Raspberry Pi 5 Model B Rev 1.0"),
        ("", "Some Board\n", "Some Board"),
    ],
)
def test_the_processor_is_named_on_linux(tmp_path, cpuinfo, board, expected):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    if board is not None:
        (tmp_path / "model").write_text(board)
    assert processor(str(tmp_path / "cpuinfo"), str(tmp_path / "model")) == expected


def named(tmp_path):
    return processor(str(tmp_path / "none"), str(tmp_path / "none"))


def test_the_processor_is_named_on_macos(tmp_path, monkeypatch):
    def run(command, **options):
        assert command == ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return types.SimpleNamespace(stdout="Apple M2 Pro\n")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert named(tmp_path) == "Apple M2 Pro"

    def refused(command, **options):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", refused)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert named(tmp_path) == "arm"


def test_the_processor_is_named_on_windows(tmp_path, monkeypatch):
    name = "ARMv8 (64-bit) Family 8 Model 1 Revision 201, Qualcomm Technologies Inc"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", name)
    assert named(tmp_path) == name


def test_where_the_system_says_nothing_the_instruction_set_is_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "another")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert named(tmp_path) == platform.machine()
