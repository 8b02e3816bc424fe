"""Qwen-VL in PyTorch. torch is loaded when one of these names is first used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.runtime.generation import Sampling
    from eval.runtime.qwen_vl import Generated, QwenVL

__all__ = ["Generated", "QwenVL", "Sampling"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eval.runtime import generation, qwen_vl

    return getattr(generation if name == "Sampling" else qwen_vl, name)
