"""Evaluation harness for the Qwen-VL vision-language models.

The names a benchmark module or a plugin needs; importing them never imports torch.
"""

from eval.api import (
    Backend,
    Corpus,
    Generate,
    Layout,
    Prediction,
    Rank,
    Request,
    Sample,
    Source,
    Task,
)
from eval.errors import EvalError

__all__ = [
    "Backend",
    "Corpus",
    "EvalError",
    "Generate",
    "Layout",
    "Prediction",
    "Rank",
    "Request",
    "Sample",
    "Source",
    "Task",
]
__version__ = "0.1.0"
