"""The runtime's face: prompts in the original's notation in, features, logits and texts out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from eval.errors import CheckpointError, UsageError
from eval.runtime import chat
from eval.runtime.checkpoint import Checkpoint, device_and_dtype, find_checkpoint, load_weights
from eval.runtime.config import QwenVLConfig
from eval.runtime.generation import Losses, Sampling, choice_losses, continue_rows
from eval.runtime.image import load_pixels
from eval.runtime.model import QwenVLForCausalLM
from eval.runtime.recognise import VOCABULARY
from eval.runtime.tokenizer import Tokenizer

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
IMAGES_AT_ONCE = 16  # bounds the memory of the vision tower, changes nothing but rounding


@dataclass(frozen=True, slots=True)
class Generated:
    """A continuation.

    ids   new token ids, up to and with `<|endoftext|>`
    text  decoded without special tokens, not stripped
    """

    ids: list[int]
    text: str


class QwenVL:
    """A Qwen-VL or Qwen-VL-Chat checkpoint, ready to answer.

    A prompt is a string in the original's notation, `<img>path</img>What is this? Answer:`. Paths
    are files below `image_root`, by default the working directory, and may have any length.
    Several prompts form one batch, padded on the left as the original does.
    """

    def __init__(
        self, model: QwenVLForCausalLM, tokenizer: Tokenizer, checkpoint: Checkpoint
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.checkpoint = checkpoint

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "cpu",
        dtype: str = "float32",
        revision: str | None = None,
        weights: str | None = None,
    ) -> "QwenVL":
        """Load a folder in the published format, or a hub id at a revision.

        device  cpu, cuda, cuda:N, or auto: one GPU, several where one is too small, else the CPU
        dtype   float32, bfloat16, float16, or auto: bfloat16 where a GPU has it, else float16 on a
                GPU, else float32, as the original chooses
        weights the file that stands for a set of weights, where a folder has several

        Raises CheckpointError, naming the file and the key.
        """
        device = _device(str(device))
        torch_dtype = _dtype(str(dtype).removeprefix("torch."), device)
        checkpoint = find_checkpoint(path, revision, weights)
        checkpoint.chat_format()  # a damaged file is named before the weights are loaded
        parameters = checkpoint.parameters()
        shapes = {name: each.shape for name, each in parameters.items()}
        config = QwenVLConfig.from_folder(checkpoint.folder, shapes)
        tokenizer = Tokenizer.from_file(checkpoint.folder / VOCABULARY)
        if tokenizer.img_start_id != config.image_start_id:
            raise CheckpointError(
                f"{checkpoint.folder}: config.json says <img> is {config.image_start_id}, "
                f"{VOCABULARY} makes it {tokenizer.img_start_id}"
            )
        if tokenizer.vocab_size > config.vocab_size:
            raise CheckpointError(
                f"{checkpoint.folder}: {VOCABULARY} has {tokenizer.vocab_size} ids, config.json "
                f"makes room for {config.vocab_size}"
            )
        with torch.device("meta"):
            model = QwenVLForCausalLM(config)
        placement = device_and_dtype(model, device, torch_dtype)
        load_weights(model, checkpoint.folder, parameters, placement, torch_dtype)
        if len(placement) > 1:
            from accelerate import dispatch_model

            model = dispatch_model(model, placement)
        return cls(model.eval(), tokenizer, checkpoint)

    @property
    def device(self) -> torch.device:
        """Where ids and pixels go in."""
        return self.model.transformer.wte.weight.device

    @torch.inference_mode()
    def encode_images(self, images: Iterable[str | Path | Image.Image]) -> Tensor:
        """Vision features (N, 256, D) of paths or PIL images, in the model's dtype."""
        visual = self.model.transformer.visual
        pictures = _listed(images, "images")
        parts = []
        for begin in range(0, len(pictures), IMAGES_AT_ONCE):
            chunk = pictures[begin : begin + IMAGES_AT_ONCE]
            pixels = torch.stack([load_pixels(image, visual.image_size) for image in chunk])
            parts.append(visual(pixels.to(visual.conv1.weight.device)))
        if not parts:
            return torch.empty(0, 256, self.model.config.hidden_size, device=self.device)
        return torch.cat(parts)

    @torch.inference_mode()
    def next_token_logits(self, prompts: Sequence[str], image_root: Path | None = None) -> Tensor:
        """Scores of the token after each prompt, (N, V)."""
        rows, paths = self._read(prompts, image_root)
        if not rows:
            return torch.empty(0, self.model.config.vocab_size, device=self.device)
        hidden, _ = self.model(*self._batch(rows, paths))
        return self.model.lm_head(hidden[:, -1])  # type: ignore[no-any-return]

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        min_new_tokens: int = 0,
        *,
        sampling: Sampling | None = None,
        seeds: Sequence[int] | None = None,
        image_root: Path | None = None,
        chat: bool = False,
    ) -> list[Generated]:
        """Continue each prompt until `<|endoftext|>` or the maximum: greedily, or sampled.

        min_new_tokens  `<|endoftext|>` is forbidden for so many steps
        sampling        with it `seeds`, one a prompt: equal seeds give equal texts
        chat            each prompt is the only turn of a ChatML dialogue, and `<|im_end|>` or
                        `<|im_start|>` ends the reply too
        """
        rows, paths = self._read(prompts, image_root, chat)
        stops = (self.tokenizer.im_end_id, self.tokenizer.im_start_id) if chat else ()
        new = self._continue(
            rows, paths, max_new_tokens, min_new_tokens, stops, sampling=sampling, seeds=seeds
        )
        return [Generated(ids, self.tokenizer.decode_answer(ids)) for ids in new]

    def choice_losses(
        self,
        prompt: str,
        choices: Sequence[str],
        image_root: Path | None = None,
        chat: bool = False,
    ) -> list[float]:
        """Mean negative log-likelihood (nats) of each choice's tokens after the prompt.

        chat  the prompt is the only turn of a ChatML dialogue, the choices are replies to it

        From logits cast to float32; `rank` gives the original's losses too.
        """
        return list(self.rank(prompt, choices, image_root, chat).exact)

    def rank(
        self,
        prompt: str,
        choices: Sequence[str],
        image_root: Path | None = None,
        chat: bool = False,
    ) -> Losses:
        """Losses of choices as `choice_losses` takes them, in float32 and as published.

        Raises ValueError where the model's logits are not finite.
        """
        (prefix,), paths = self._read([prompt], image_root, chat)
        targets = [self.tokenizer.encode(choice) for choice in _listed(choices, "choices")]
        if not targets or not all(targets):
            raise UsageError("choices: at least one, each of at least one token, expected")
        rows = [prefix + target for target in targets]
        ids, _ = self.tokenizer.left_pad(rows)
        ids = ids.to(self.device)
        mask = (ids != self.tokenizer.eod_id).long()  # as the original: an <|endoftext|> is masked
        features = self.encode_images(paths).repeat(len(rows), 1, 1) if paths else None
        return choice_losses(self.model, ids, mask, features, [len(t) for t in targets])

    def chat_ids(
        self,
        query: str,
        history: Sequence[chat.Turn] | None = (),
        system: str = chat.SYSTEM,
    ) -> list[int]:
        """ChatML ids of a dialogue whose next turn is the assistant's."""
        return chat.chat_ids(self.tokenizer, query, history or (), system)

    def chat(
        self,
        query: str,
        history: Sequence[chat.Turn] | None = (),
        system: str = chat.SYSTEM,
        *,
        max_new_tokens: int = 512,
        sampling: Sampling | None = None,
        seed: int = 0,
        image_root: Path | None = None,
    ) -> Generated:
        """The Chat model's reply; it ends at `<|im_end|>` or `<|im_start|>`, trimmed as published.

        Greedy unless `sampling` is given; the published setting is `Sampling()`.
        """
        prompt = chat.chat_prompt(self.tokenizer, query, history or (), system)
        paths = [_below(image_root, path) for path in prompt.paths]
        stops = (self.tokenizer.im_end_id, self.tokenizer.im_start_id)
        (new,) = self._continue(
            [prompt.ids], paths, max_new_tokens, 0, stops, sampling=sampling, seeds=[seed]
        )
        return Generated(new, chat.decode_reply(self.tokenizer, prompt, new))

    def read(
        self, prompt: str, image_root: Path | None = None, as_dialogue: bool = False
    ) -> tuple[list[int], list[Path | str]]:
        """Ids of a prompt, nothing but `<imgpad>` in image slots, and its images' files.

        as_dialogue  the prompt is the only turn of a ChatML dialogue
        """
        if as_dialogue:
            ids, paths, _ = chat.chat_prompt(self.tokenizer, prompt)
        else:
            ids, paths = self.tokenizer.encode_prompt(prompt)
        if not ids:
            raise UsageError("a prompt of at least one token expected, an empty one found")
        return ids, [_below(image_root, path) for path in paths]

    def _read(
        self, prompts: Sequence[str], image_root: Path | None, as_dialogue: bool = False
    ) -> tuple[list[list[int]], list[Path | str]]:
        """Ids of each prompt, and the files of all images in reading order."""
        read = [self.read(p, image_root, as_dialogue) for p in _listed(prompts, "prompts")]
        return [ids for ids, _ in read], [path for _, paths in read for path in paths]

    def _batch(
        self, rows: list[list[int]], paths: list[Path | str]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Left-padded ids and mask (R, S), and the images' features."""
        ids, mask = self.tokenizer.left_pad(rows)
        features = self.encode_images(paths) if paths else None
        return ids.to(self.device), mask.to(self.device), features

    def _continue(
        self,
        rows: list[list[int]],
        paths: list[Path | str],
        max_new_tokens: int,
        min_new_tokens: int,
        stop_ids: Sequence[int] = (),
        *,
        sampling: Sampling | None,
        seeds: Sequence[int] | None,
    ) -> list[list[int]]:
        if not rows:
            return []
        if sampling is not None and (seeds is None or len(seeds) != len(rows)):
            raise UsageError(f"sampling needs one seed a prompt: {len(rows)} prompts, {seeds=}")
        return continue_rows(
            self.model,
            *self._batch(rows, paths),
            end_id=self.tokenizer.eod_id,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            stop_ids=stop_ids,
            sampling=sampling,
            seeds=seeds if sampling and seeds else (),
        )

    def describe(self) -> dict[str, Any]:
        """What a manifest says about the model, but for its digest."""
        weight = self.model.lm_head.weight
        return {
            "checkpoint": self.checkpoint.name,
            "revision": self.checkpoint.revision,
            "chat_format": self.checkpoint.chat_format(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "dtype": str(weight.dtype).removeprefix("torch."),
            "device": str(self.device),
        }


def _listed(values: Iterable[T], what: str) -> list[T]:
    """A list of them; a lone text would otherwise be taken for a list of its characters."""
    if isinstance(values, str | Path | Image.Image):
        raise UsageError(f"{what}: a list expected, one {type(values).__name__} found")
    return list(values)


def _below(root: Path | None, path: str) -> Path | str:
    if path.startswith(("http://", "https://")):
        return path
    return root / path if root else Path(path)


def _device(name: str) -> str:
    if name not in ("cpu", "auto", "cuda") and not name.removeprefix("cuda:").isdigit():
        raise UsageError(f"device {name!r}: cpu, cuda, cuda:N or auto expected")
    if name.startswith("cuda"):
        number = int(name.partition(":")[2] or 0)
        if not torch.cuda.is_available() or number >= torch.cuda.device_count():
            raise UsageError(f"device {name!r}: {torch.cuda.device_count()} CUDA devices found")
        return f"cuda:{number}"
    return name


def _dtype(name: str, device: str) -> torch.dtype:
    if name == "auto":
        if device == "cpu" or not torch.cuda.is_available():
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r}: one of {', '.join(DTYPES)} or auto expected")
    return DTYPES[name]
