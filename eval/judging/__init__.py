"""Judged tasks: what is asked of a judge, at what cost, and what comes of its replies."""
