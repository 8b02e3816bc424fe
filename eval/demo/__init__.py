"""The bundled checkpoint, scenes that are drawn for it, and servers on loopback that know them."""

from pathlib import Path

DEMO = "demo"  # the name of the bundled checkpoint, where a checkpoint is asked for


def bundled_checkpoint() -> Path:
    """The demo's checkpoint, where this package is installed."""
    return Path(__file__).parent / "checkpoint"
