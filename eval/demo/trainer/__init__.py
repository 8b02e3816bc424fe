"""Trains the demo's checkpoint; see its module train. It is not part of the wheel."""
