"""The demo: a drawn world, a tiny checkpoint trained on it, and data in the official formats."""
