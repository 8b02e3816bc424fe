"""The published `config.json`, read as data: sizes and switches of the two towers."""

import json
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from eval.errors import CheckpointError

MODEL_FIELDS = {
    "vocab_size": int,
    "hidden_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "kv_channels": int,
    "intermediate_size": int,
    "seq_length": int,
    "layer_norm_epsilon": float,
    "rotary_emb_base": float,
}
VISUAL_FIELDS = {
    "image_size": int,
    "patch_size": int,
    "width": int,
    "layers": int,
    "heads": int,
    "mlp_ratio": float,
    "output_dim": int,
    "image_start_id": int,
}
LIMIT = 10_000_000  # no size in a config is larger; a hostile one would ask for all the memory


class QwenVLConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """Sizes of a Qwen-VL model under the names of the published config.

    intermediate_size  twice the width of one MLP branch
    seq_length         length up to which rotary positions and attention are left as trained
    visual             sizes of the vision tower: see VISUAL_FIELDS
    Unknown fields are kept and ignored.
    """

    model_type = "qwen"

    def __init__(
        self,
        vocab_size: int = 151936,
        hidden_size: int = 4096,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 32,
        kv_channels: int = 128,
        intermediate_size: int = 22016,
        seq_length: int = 2048,
        layer_norm_epsilon: float = 1e-6,
        rotary_emb_base: float = 10000.0,
        use_dynamic_ntk: bool = True,
        use_logn_attn: bool = True,
        visual: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.kv_channels = kv_channels
        self.intermediate_size = intermediate_size
        self.seq_length = seq_length
        self.layer_norm_epsilon = layer_norm_epsilon
        self.rotary_emb_base = rotary_emb_base
        self.use_dynamic_ntk = use_dynamic_ntk
        self.use_logn_attn = use_logn_attn
        self.visual = visual or {
            "image_size": 448,
            "patch_size": 14,
            "width": 1664,
            "layers": 48,
            "heads": 16,
            "mlp_ratio": 4.9231,
            "output_dim": 4096,
            "image_start_id": 151857,
        }
        self.tie_word_embeddings = False
        others.pop("tie_word_embeddings", None)
        super().__init__(**others)

    @property
    def image_start_id(self) -> int:
        """Token id of `<img>`; `</img>` and `<imgpad>` are the next two."""
        return int(self.visual["image_start_id"])

    @classmethod
    def from_folder(cls, folder: Path) -> "QwenVLConfig":
        """Read and check `config.json`. Raises CheckpointError, naming the file and the field."""
        path = folder / "config.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{path}: missing. A checkpoint is a folder in the published Qwen-VL format: "
                "config.json, qwen.tiktoken, and weights in .safetensors or pytorch_model*.bin"
            ) from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
        if not isinstance(fields, dict):
            raise CheckpointError(f"{path}: an object expected, {type(fields).__name__} found")
        if fields.get("model_type") != "qwen" or not isinstance(fields.get("visual"), dict):
            raise CheckpointError(
                f"{path}: not a Qwen-VL model: model_type 'qwen' with a 'visual' section expected, "
                f"model_type {fields.get('model_type')!r} "
                f"{'with' if 'visual' in fields else 'without'} 'visual' found"
            )
        _check(path, fields, MODEL_FIELDS, "")
        _check(path, fields["visual"], VISUAL_FIELDS, "visual.")
        _check_shapes(path, fields)
        known = (*MODEL_FIELDS, "use_dynamic_ntk", "use_logn_attn", "visual")
        return cls(**{name: fields[name] for name in known if name in fields})


def _check(path: Path, fields: dict[str, Any], expected: dict[str, type], prefix: str) -> None:
    for name, kind in expected.items():
        value = fields.get(name)
        numbers = (int,) if kind is int else (int, float)
        if type(value) not in numbers or not 0 < value < LIMIT:  # type: ignore[operator]
            raise CheckpointError(
                f"{path}: {prefix}{name}: a positive {kind.__name__} expected, {value!r} found"
            )


def _check_shapes(path: Path, fields: dict[str, Any]) -> None:
    visual = fields["visual"]
    rules = {
        "num_attention_heads * kv_channels == hidden_size": (
            fields["num_attention_heads"] * fields["kv_channels"] == fields["hidden_size"]
        ),
        "visual.output_dim == hidden_size": visual["output_dim"] == fields["hidden_size"],
        "visual.output_dim is a multiple of 128": visual["output_dim"] % 128 == 0,
        "visual.width is a multiple of visual.heads": visual["width"] % visual["heads"] == 0,
        "visual.image_size is a multiple of visual.patch_size": (
            visual["image_size"] % visual["patch_size"] == 0
        ),
        "kv_channels is even and above 2": fields["kv_channels"] % 2 == 0
        and fields["kv_channels"] > 2,
        "intermediate_size is even": fields["intermediate_size"] % 2 == 0,
        "visual.image_start_id + 2 < vocab_size": (
            visual["image_start_id"] + 2 < fields["vocab_size"]
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError(f"{path}: inconsistent sizes: {rule} expected")
