"""The name of the processor, from each system's own source."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

# Linux on ARM reports numbers instead of names: the maker of the core, and its part number.
_MAKERS = {
    0x41: "ARM",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}
_PARTS = {
    0x41: {
        0xD03: "Cortex-A53",
        0xD04: "Cortex-A35",
        0xD05: "Cortex-A55",
        0xD07: "Cortex-A57",
        0xD08: "Cortex-A72",
        0xD09: "Cortex-A73",
        0xD0A: "Cortex-A75",
        0xD0B: "Cortex-A76",
        0xD0C: "Neoverse N1",
        0xD0D: "Cortex-A77",
        0xD40: "Neoverse V1",
        0xD41: "Cortex-A78",
        0xD42: "Cortex-A78AE",
        0xD44: "Cortex-X1",
        0xD46: "Cortex-A510",
        0xD47: "Cortex-A710",
        0xD48: "Cortex-X2",
        0xD49: "Neoverse N2",
        0xD4A: "Neoverse E1",
        0xD4D: "Cortex-A715",
        0xD4E: "Cortex-X3",
        0xD4F: "Neoverse V2",
        0xD80: "Cortex-A520",
        0xD81: "Cortex-A720",
        0xD82: "Cortex-X4",
        0xD84: "Neoverse V3",
        0xD85: "Cortex-X925",
        0xD87: "Cortex-A725",
        0xD8E: "Neoverse N3",
    },
    0x46: {0x001: "A64FX", 0x003: "MONAKA"},
    0x48: {0xD01: "TaiShan v110", 0xD02: "TaiShan v120"},
    0x4E: {0x004: "Carmel", 0x010: "Olympus"},
    0x51: {0x001: "Oryon", 0xC00: "Falkor"},
    0x61: {
        0x022: "Icestorm (M1)",
        0x023: "Firestorm (M1)",
        0x024: "Icestorm (M1 Pro)",
        0x025: "Firestorm (M1 Pro)",
        0x028: "Icestorm (M1 Max)",
        0x029: "Firestorm (M1 Max)",
        0x032: "Blizzard (M2)",
        0x033: "Avalanche (M2)",
        0x034: "Blizzard (M2 Pro)",
        0x035: "Avalanche (M2 Pro)",
        0x038: "Blizzard (M2 Max)",
        0x039: "Avalanche (M2 Max)",
    },
    0x6D: {0xD49: "Cobalt 100"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1A"},
}
_CPUINFO, _BOARD = "/proc/cpuinfo", "/sys/firmware/devicetree/base/model"


def processor(cpuinfo: str = _CPUINFO, board: str = _BOARD) -> str:
    """The processor's own name, or else its cores, the board, or the instruction set.

    Parameters
    ----------
    cpuinfo, board
        Paths of the files in which Linux describes processor and board.
    """
    described = _read(cpuinfo)
    found = _value(described, "model name") or _arm_cores(described) or _value(described, "hardware")
    found = found or _read(board).replace("\0", "").strip()
    if not found and sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not found and sys.platform == "win32":
        found = os.environ.get("PROCESSOR_IDENTIFIER", "").strip()
    return found or platform.processor() or platform.machine()


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def _values(described: str, name: str) -> list[str]:
    """The values of the lines with this name."""
    pairs = (line.partition(":")[::2] for line in described.splitlines())
    return [value.strip() for key, value in pairs if key.strip().lower() == name]


def _value(described: str, name: str) -> str:
    return next(filter(None, _values(described, name)), "")


def _arm_cores(described: str) -> str:
    """The distinct kinds of cores, from their numbers; empty if there are none."""
    names: list[str] = []
    pairs = zip(_values(described, "cpu implementer"), _values(described, "cpu part"), strict=False)
    for maker, part in pairs:
        with suppress(ValueError):
            name = _core(int(maker, 16), int(part, 16))
            if name not in names:
                names.append(name)
    return " and ".join(names)


def _core(maker: int, part: int) -> str:
    made_by = _MAKERS.get(maker, f"implementer {maker:#04x}")
    name = _PARTS.get(maker, {}).get(part, f"part {part:#05x}")
    return name if name.startswith(made_by) else f"{made_by} {name}"
