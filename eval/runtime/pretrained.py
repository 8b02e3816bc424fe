"""The model as a transformers model: from_pretrained, save_pretrained."""

from inspect import signature
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from eval.runtime.checkpoint import UNSPLIT
from eval.runtime.config import QwenVLConfig
from eval.runtime.model import QwenVLForCausalLM, Transformer


class PretrainedQwenVLConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """QwenVLConfig for transformers."""

    model_type = "qwen"

    def __init__(self, **fields: Any) -> None:
        known = signature(QwenVLConfig).parameters
        own = {name: fields.pop(name) for name in list(fields) if name in known}
        self.__dict__.update(vars(QwenVLConfig(**own)))
        super().__init__(**fields | {"tie_word_embeddings": False})

    image_start_id = QwenVLConfig.image_start_id


class PretrainedQwenVL(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """QwenVLForCausalLM for transformers, under the same parameter names."""

    config_class = PretrainedQwenVLConfig
    base_model_prefix = "transformer"
    _no_split_modules = UNSPLIT

    def __init__(self, config: PretrainedQwenVLConfig) -> None:
        super().__init__(config)
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave modules as torch made them: weights come from a checkpoint or a trainer."""

    embed = QwenVLForCausalLM.embed
    forward = QwenVLForCausalLM.forward
