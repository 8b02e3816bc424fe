"""The model that the engine is measured on: Qwen-VL's shape, smaller, with seeded random weights.

Vision tower, image prefill and decoded token stand in about the same proportions as in the real
model, which `arithmetic.py` counts.
"""

import base64
import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eval.runtime import QwenVL
from eval.runtime.checkpoint import save_checkpoint
from eval.runtime.config import QwenVLConfig
from eval.runtime.language import RMSNorm
from eval.runtime.model import QwenVLForCausalLM

SEED = 2023
RANKS = 4583  # 217 special tokens follow
NOTATION = ("Answer", "Context", "Question", "Options", "Describe", "the", "image", "English")
LETTERED = (" A", " B", " C", " D")
OPENING = 256  # words that are one token where no space stands before them
SHARPNESS = 3.0  # of queries and keys: attention picks few tokens, so that answers differ
EMBEDDED = 0.5  # deviation of token embeddings: what attention adds outweighs the last token
# The row of `<|endoftext|>` in lm_head is that of another token times a factor. Both were chosen
# once so that short answers have about 3 tokens of at most 10, and captions about 12 of at most 30.
END_LIKE, END_FACTOR = 8, -12.0
CONFIG = {
    "model_type": "qwen",
    "vocab_size": RANKS + 217,
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "kv_channels": 64,
    "intermediate_size": 2 * 1376,
    "seq_length": 2048,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000.0,
    "visual": {
        "image_size": 224,
        "patch_size": 14,
        "width": 416,
        "layers": 12,
        "heads": 4,
        "mlp_ratio": 4.9231,
        "output_dim": 512,
        "image_start_id": RANKS + 214,
    },
}
TINY = CONFIG | {  # for what does not depend on the model: memory, and whether all this works
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 2 * 64,
    "visual": CONFIG["visual"]
    | {"image_size": 28, "width": 32, "layers": 2, "heads": 2, "output_dim": 128},
}


def words() -> tuple[list[str], list[str]]:
    """Words that are one token at the beginning of a text, and words that are one behind a space.

    Random letters, the same at each call.
    """
    rng = random.Random(SEED)
    room = RANKS - 256 - len(LETTERED) - 2 * len(NOTATION)
    found: dict[str, None] = {}
    while len(found) < room:
        found["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 8)))] = None
    drawn = list(found)
    return drawn[:OPENING], drawn[OPENING:]


def make_model(config: dict[str, Any], folder: Path) -> QwenVL:
    """Write a checkpoint, and load it as a user would."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    opening, later = words()
    texts = [*LETTERED, *NOTATION, *(f" {word}" for word in (*NOTATION, *later)), *opening]
    ranks = [*(bytes([byte]) for byte in range(256)), *(text.encode() for text in texts)]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks)]
    (folder / "qwen.tiktoken").write_text("".join(lines), encoding="ascii")
    model = QwenVLForCausalLM(QwenVLConfig(**config))
    fill(model)
    save_checkpoint(model, folder)
    return QwenVL.from_pretrained(folder)


@torch.no_grad()
def fill(model: QwenVLForCausalLM) -> None:
    """Draw all weights so that activations keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(SEED)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(std=0.02, generator=generator)
        elif isinstance(module, nn.LayerNorm | RMSNorm):
            module.weight.normal_(1.0, 0.1, generator=generator)
            if isinstance(module, nn.LayerNorm):
                module.bias.normal_(std=0.02, generator=generator)
        elif isinstance(module, nn.Conv2d):
            module.weight.normal_(std=module.weight[0].numel() ** -0.5, generator=generator)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=EMBEDDED, generator=generator)
    model.transformer.visual.reset(generator)
    for block in model.transformer.h:
        block.attn.c_attn.weight[: 2 * model.config.hidden_size] *= SHARPNESS


@torch.no_grad()
def set_end(model: QwenVL, likely: bool) -> None:
    """Make `<|endoftext|>` as likely as in real answers, or never the best token.

    `<img>` never is: an image that is only begun makes no sense.
    """
    rows = model.model.lm_head.weight
    rows[model.tokenizer.img_start_id] = 0
    rows[model.tokenizer.eod_id] = rows[END_LIKE] * (END_FACTOR if likely else 0)
