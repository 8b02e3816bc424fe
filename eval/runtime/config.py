"""The published `config.json`, read as data: sizes and switches of the two towers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from eval.errors import CheckpointError
from eval.runtime import recognise
from eval.storage.reading import Schema, parse_json, read_bytes, unique_keys

Size = Annotated[int, Field(ge=1, le=1_000_000)]
Layers = Annotated[int, Field(ge=1, le=1000)]  # each costs time before anything is computed
MAX_GRID = 128  # patches along a side of the picture: more would ask for all the memory

TOGETHER = "Take config.json and the weights from one place"


@dataclass(frozen=True, slots=True)
class VisualFields:
    """The vision tower's part of the published config."""

    image_size: Size
    patch_size: Size
    width: Size
    layers: Layers
    heads: Size
    mlp_ratio: Annotated[float, Field(gt=0, le=1000)]
    output_dim: Size
    image_start_id: Size


@dataclass(frozen=True, slots=True)
class Fields:
    """The part of the published config that is read; what else it holds is ignored."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    kv_channels: Size
    intermediate_size: Size
    seq_length: Annotated[int, Field(ge=1, le=10_000_000)]
    layer_norm_epsilon: Annotated[float, Field(gt=0, le=1)]
    rotary_emb_base: Annotated[float, Field(gt=0, le=1e12)]
    visual: VisualFields
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True


SCHEMA: Schema[Fields] = Schema(Fields)
SIZES: tuple[tuple[str, int, str, Callable[[Fields], float]], ...] = (
    # parameter, axis of its shape, the field that decides it, and what the field asks for
    ("transformer.wte.weight", 0, "vocab_size", lambda f: f.vocab_size),
    ("transformer.wte.weight", 1, "hidden_size", lambda f: f.hidden_size),
    ("transformer.h.0.mlp.w1.weight", 0, "intermediate_size", lambda f: f.intermediate_size // 2),
    ("transformer.visual.conv1.weight", 0, "visual.width", lambda f: f.visual.width),
    ("transformer.visual.conv1.weight", 2, "visual.patch_size", lambda f: f.visual.patch_size),
    ("transformer.visual.proj", 0, "visual.output_dim", lambda f: f.visual.output_dim),
    (
        "transformer.visual.transformer.resblocks.0.mlp.c_fc.weight",
        0,
        "visual.mlp_ratio",
        lambda f: int(f.visual.width * f.visual.mlp_ratio),
    ),
)
LAYERS = (  # what a layer's parameters begin with, and the field that counts the layers
    (r"transformer\.h\.(\d+)\.", "num_hidden_layers"),
    (r"transformer\.visual\.transformer\.resblocks\.(\d+)\.", "visual.layers"),
)


class QwenVLConfig:
    """Sizes of a Qwen-VL model under the names of the published config.

    intermediate_size  twice the width of one MLP branch
    seq_length         length up to which rotary positions and attention are left as trained
    visual             sizes of the vision tower: see VisualFields
    others             kept as they are
    """

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
        self.__dict__.update(others)

    @property
    def image_start_id(self) -> int:
        """Token id of `<img>`; `</img>` and `<imgpad>` are the next two."""
        return int(self.visual["image_start_id"])

    @classmethod
    def from_folder(
        cls, folder: Path, parameters: Mapping[str, tuple[int, ...]] | None = None
    ) -> "QwenVLConfig":
        """Read and check `config.json`. Raises CheckpointError, naming the file and the field.

        parameters  shapes of the weights by name: sizes that contradict them are errors too
        """
        path = folder / recognise.CONFIG
        content = read_bytes(path, CheckpointError, recognise.MAX_JSON_BYTES)
        fields = parse_json(content, str(path), CheckpointError)
        if not isinstance(fields, dict):
            raise CheckpointError(f"{path}: holds a {type(fields).__name__}, not an object")
        recognise.refuse_config(path, fields)
        unique_keys(content, str(path), CheckpointError)
        checked = SCHEMA.parse(content, str(path), CheckpointError)
        _check_shapes(path, checked)
        if parameters is not None:
            _check_against(path, checked, parameters)
        return cls(**asdict(checked))


def _check_shapes(path: Path, fields: Fields) -> None:
    """Raise CheckpointError for sizes of which no model can be made."""
    visual = fields.visual
    rules = {
        "num_attention_heads * kv_channels == hidden_size": (
            fields.num_attention_heads * fields.kv_channels == fields.hidden_size
        ),
        "visual.output_dim == hidden_size": visual.output_dim == fields.hidden_size,
        "visual.output_dim is a multiple of 128": visual.output_dim % 128 == 0,
        "visual.width is a multiple of visual.heads": visual.width % visual.heads == 0,
        "visual.image_size is a multiple of visual.patch_size": (
            visual.image_size % visual.patch_size == 0
        ),
        f"visual.image_size is at most {MAX_GRID} * visual.patch_size": (
            visual.image_size <= MAX_GRID * visual.patch_size
        ),
        "kv_channels is even and above 2": fields.kv_channels % 2 == 0 and fields.kv_channels > 2,
        "intermediate_size is even": fields.intermediate_size % 2 == 0,
        "visual.image_start_id + 2 < vocab_size": visual.image_start_id + 2 < fields.vocab_size,
    }
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError(f"{path}: inconsistent sizes: {rule} must hold")


def _check_against(path: Path, fields: Fields, parameters: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError for a size that contradicts the weights; what they lack is skipped."""
    for pattern, name in LAYERS:
        count = len({match[1] for key in parameters if (match := re.match(pattern, key))})
        said = fields.num_hidden_layers if name == "num_hidden_layers" else fields.visual.layers
        if said != count:
            raise CheckpointError(
                f"{path}: {name} is {said}, and the weights have {count} layers. {TOGETHER}"
            )
    for key, axis, name, size in SIZES:
        shape = parameters.get(key)
        if shape and (axis >= len(shape) or shape[axis] != size(fields)):
            raise CheckpointError(
                f"{path}: {name} asks for {size(fields)} in dimension {axis} of {key}, whose shape "
                f"in the weights is {shape}. {TOGETHER}"
            )
