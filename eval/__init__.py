"""Evaluation harness for the Qwen-VL vision-language models.

The names a benchmark module or a plugin needs; importing them never imports torch.
"""

from eval.api import Backend, Generate, Nucleus, Prediction, Rank, Request
from eval.data.declare import (
    Archive,
    Build,
    ByHand,
    Corpus,
    Download,
    Expect,
    Layout,
    Mirror,
    Pictures,
    Sample,
    Source,
    Submission,
    Task,
)
from eval.errors import EvalError

__all__ = [
    "Archive",
    "Backend",
    "Build",
    "ByHand",
    "Corpus",
    "Download",
    "EvalError",
    "Expect",
    "Generate",
    "Layout",
    "Mirror",
    "Nucleus",
    "Pictures",
    "Prediction",
    "Rank",
    "Request",
    "Sample",
    "Source",
    "Submission",
    "Task",
]
__version__ = "0.1.0"
