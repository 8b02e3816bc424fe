"""Qwen-VL in PyTorch: token ids and pixels in, logits out. It knows no benchmark.

Read beside the papers, in this order: config, image, visual, language, model, tokenizer, chat,
generation, checkpoint, qwen_vl.
"""

from eval.runtime.generation import Sampling
from eval.runtime.qwen_vl import Generated, QwenVL

__all__ = ["Generated", "QwenVL", "Sampling"]
