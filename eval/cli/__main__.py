"""For `python -m eval.cli`; launchers start the console script, which no file can hide."""

from pathlib import Path

from eval.cli.start import start

start(Path(__file__).resolve().parents[2])
