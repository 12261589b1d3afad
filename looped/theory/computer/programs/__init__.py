"""Example programs for the machines."""

from pathlib import Path

PROGRAMS = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.asm"))}
"""Their files by name."""
