"""The demo checkpoint before training: its sizes in the published schema, its starting weights."""

from typing import Any, cast

import torch
from torch import nn

from eval.runtime.model import QwenVLForCausalLM
from eval.runtime.visual import sincos_positions

IMAGE_PX = 112


def config_fields(n_ranks: int) -> dict[str, Any]:
    """The published config schema at the demo's size."""
    return {
        "_name_or_path": "./",
        "architectures": ["QWenLMHeadModel"],
        "attn_dropout_prob": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "bf16": True,
        "emb_dropout_prob": 0.0,
        "fp16": False,
        "fp32": False,
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "kv_channels": 128,
        "layer_norm_epsilon": 1e-06,
        "max_position_embeddings": 8192,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "onnx_safe": None,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": 2048,
        "tie_word_embeddings": False,
        "tokenizer_type": "QWenTokenizer",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_flash_attn": False,
        "use_logn_attn": True,
        "visual": {
            "heads": 6,
            "image_size": IMAGE_PX,
            "image_start_id": n_ranks + 214,
            "layers": 4,
            "mlp_ratio": 3.0,
            "output_dim": 256,
            "patch_size": 14,
            "width": 192,
        },
        "vocab_size": -(-(n_ranks + 217) // 8) * 8,
    }


def generation_fields(eod_id: int) -> dict[str, Any]:
    """The published generation config with this vocabulary's ids."""
    return {
        "chat_format": "chatml",
        "do_sample": True,
        "eos_token_id": eod_id,
        "max_new_tokens": 512,
        "max_window_size": 6144,
        "pad_token_id": eod_id,
        "top_k": 0,
        "top_p": 0.3,
        "transformers_version": "4.31.0",
    }


def init_weights(model: QwenVLForCausalLM, seed: int) -> None:
    """Starting weights; above all, each resampler query looks at its own place in the picture."""
    generator = torch.Generator().manual_seed(seed)
    visual = model.transformer.visual
    visual.reset(generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and name.endswith("weight") and "attn_pool" not in name:
                std = weight.shape[1] ** -0.5
                if name.endswith("c_proj.weight") or name.endswith("out_proj.weight"):
                    std *= 0.35  # these are added to the residual stream
                if name.endswith("wte.weight"):
                    std = 0.5
                weight.normal_(std=std, generator=generator)
            elif name.endswith("bias"):
                weight.zero_()
        visual.conv1.weight.normal_(std=(3 * 14 * 14) ** -0.5, generator=generator)
        model.lm_head.weight.mul_(0.3)
        table = sincos_positions(visual.positional_embedding.shape[1])
        visual.positional_embedding.copy_(0.5 * table)
        pool = visual.attn_pool
        pool.ln_q.weight.fill_(0.1)
        pool.ln_kv.weight.fill_(0.1)
        width = pool.query.shape[1]
        halves = [*range(0, width, 2), *range(1, width, 2)]  # each head gets some of x and of y
        spread = torch.eye(width)[halves]
        pool.attn.in_proj_weight.copy_(torch.cat([4 * spread, 4 * spread, 10 * torch.eye(width)]))
        pool.attn.out_proj.weight.copy_(torch.eye(width))
        reading = cast(nn.Linear, pool.kv_proj).weight
        reading.normal_(std=reading.shape[1] ** -0.5, generator=generator)
