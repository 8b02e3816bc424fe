"""Qwen-VL's tokenizer: text in, ids out, and back.

A vocabulary of n byte-pair ranks gives ids 0 .. n-1; 217 special tokens follow directly, so every
special id is derived from the file. An image is `<img>`, 256 slots, `</img>`: 258 ids. What the
slots hold never reaches the model, which puts image features there; it only names the file.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import normalize

import tiktoken
import torch
from torch import Tensor

from eval.errors import CheckpointError
from eval.runtime.notation import IMAGE
from eval.storage.reading import read_bytes, without_bom

IMAGE_SLOTS = 256
TAGS = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>")
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{number}|>" for number in range(205)),
    *TAGS,
)
SPLIT = "|".join(  # cl100k_base's pattern, but digits are split one by one
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
MAX_VOCABULARY_BYTES = 64 << 20  # the published file has 2.6 MB
MAX_RANKS = 1_000_000


class Tokenizer:
    """Byte-pair encoding with Qwen-VL's special tokens.

    ranks  the bytes of each ordinary token, in order of id; all 256 single bytes are among them
    """

    def __init__(self, ranks: Sequence[bytes]) -> None:
        self.n_ranks = len(ranks)
        self.special_ids = {name: self.n_ranks + i for i, name in enumerate(SPECIALS)}
        self.vocab_size = self.n_ranks + len(SPECIALS)
        self.eod_id = self.special_ids["<|endoftext|>"]
        self.im_start_id = self.special_ids["<|im_start|>"]
        self.im_end_id = self.special_ids["<|im_end|>"]
        self.ref_start_id, self.ref_end_id = self._pair("ref")
        self.box_start_id, self.box_end_id = self._pair("box")
        self.quad_start_id, self.quad_end_id = self._pair("quad")
        self.img_start_id, self.img_end_id = self._pair("img")
        self.img_pad_id = self.special_ids["<imgpad>"]
        self._ranks = ranks
        self._bpe = tiktoken.Encoding(
            "qwen-vl",
            pat_str=SPLIT,
            mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
            special_tokens=self.special_ids,
        )

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Read lines `base64(bytes) rank`, ranks counted from 0.

        Raises CheckpointError, naming file and line, where the file is not such a list.
        """
        return cls(read_ranks(Path(path)))

    def encode(self, text: str, *, image_tags_only: bool = False) -> list[int]:
        """Ids of NFC-normalised text; nothing is added in front or behind.

        image_tags_only  the nine image tags are special and any other special token is ordinary
                         text; without it every special token written in the text becomes its id

        Image slots hold the path's bytes, one id each and equal to the byte, then `<imgpad>`.
        Raises ValueError where an image tag is not closed or a path is longer than 256 bytes,
        TypeError where another special token stands in a path. `encode_prompt` has neither limit.
        """
        ids = self._bpe.encode(
            normalize("NFC", text),
            allowed_special=set(TAGS) if image_tags_only else "all",
            disallowed_special=(),
        )
        spelled: list[int] = []
        done = 0
        while (start := _find(ids, self.img_start_id, done)) is not None:
            spelled += ids[done : start + 1]
            done = self._image_end(ids, start)
            spelled += self._slots(ids[start + 1 : done])
        return spelled + ids[done:]

    def encode_prompt(
        self, text: str, *, image_tags_only: bool = False
    ) -> tuple[list[int], list[str]]:
        """Ids with nothing but `<imgpad>` in image slots, and the image paths in reading order.

        Outside the slots the ids are those of `encode`; only a U+0338 directly after a tag, which
        NFC makes one character with the tag's end, leaves the tag alone here. A path is given back
        as it is written, not normalised, may have any length, and may hold anything but `</img>`.
        Raises ValueError where an image tag is not closed.
        """
        image = [self.img_start_id, *[self.img_pad_id] * IMAGE_SLOTS, self.img_end_id]
        ids: list[int] = []
        paths: list[str] = []
        done = 0
        for match in IMAGE.finditer(text):
            ids += self.encode(text[done : match.start()], image_tags_only=image_tags_only)
            ids += image
            paths.append(match[1])
            done = match.end()
        return ids + self.encode(text[done:], image_tags_only=image_tags_only), paths

    def decode(
        self,
        ids: Sequence[int] | Tensor,
        skip_special_tokens: bool = True,
        keep_image_special: bool = False,
    ) -> str:
        """Text of ids (S,); image slots become the path again, bad UTF-8 becomes U+FFFD.

        skip_special_tokens  drop every id from `<|endoftext|>` on, also those past the vocabulary;
                             a path's text stays
        keep_image_special   but keep the tags of ref, box and quad

        Raises ValueError where an image is not closed or has no pad or no UTF-8 in it, and, without
        skipping, KeyError for an id past the vocabulary.
        """
        spelled: list[int] = []
        done = 0
        row = _as_list(ids)
        while (start := _find(row, self.img_start_id, done)) is not None:
            spelled += row[done : start + 1]
            done = self._image_end(row, start)
            path = bytes(row[start + 1 : row.index(self.img_pad_id, start, done)])
            spelled += self._bpe.encode_ordinary(path.decode("utf-8"))
        spelled += row[done:]
        if skip_special_tokens:
            kept = range(self.ref_start_id, self.quad_end_id + 1) if keep_image_special else ()
            spelled = [i for i in spelled if i < self.n_ranks or i in kept]
        return self._bpe.decode(spelled, errors="replace")

    def decode_answer(self, ids: Sequence[int] | Tensor, skip_special_tokens: bool = True) -> str:
        """What `decode` gives; never an error for ids that a model can generate.

        Where `decode` raises, for a stray `<img>` say, no image is looked for: special tokens are
        dropped or, without skipping, written out, and ids past the vocabulary are dropped.
        """
        row = _as_list(ids)
        try:
            return self.decode(row, skip_special_tokens)
        except (ValueError, KeyError):
            end = self.n_ranks if skip_special_tokens else self.vocab_size
            return self._bpe.decode([i for i in row if i < end], errors="replace")

    def left_pad(self, rows: Iterable[Sequence[int] | Tensor]) -> tuple[Tensor, Tensor]:
        """Ids and mask (N, S) int64 of N rows, filled on the left with `<|endoftext|>`.

        The mask is 0 on fill and 1 elsewhere, also on an `<|endoftext|>` of the row itself.
        """
        lists = [_as_list(row) for row in rows]
        width = max(map(len, lists), default=0)
        ids = torch.full((len(lists), width), self.eod_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(lists):
            ids[number, width - len(row) :] = torch.tensor(row, dtype=torch.int64)
            mask[number, width - len(row) :] = 1
        return ids, mask

    def _pair(self, name: str) -> tuple[int, int]:
        return self.special_ids[f"<{name}>"], self.special_ids[f"</{name}>"]

    def _image_end(self, ids: list[int], start: int) -> int:
        """Where the `</img>` of an `<img>` stands."""
        end = _find(ids, self.img_end_id, start)
        if end is None:
            raise ValueError("<img> is not closed: </img> expected after the path")
        return end

    def _slots(self, ids: list[int]) -> list[int]:
        """The 256 ids between image tags, from the ids of the text between them."""
        for i in ids:
            if i >= self.n_ranks:
                raise TypeError(f"{SPECIALS[i - self.n_ranks]} stands between <img> and </img>")
        path = b"".join(self._ranks[i] for i in ids)
        if len(path) > IMAGE_SLOTS:
            raise ValueError(
                f"a path of at most {IMAGE_SLOTS} bytes expected between <img> and </img>, "
                f"{len(path)} found: {path[:80].decode('utf-8', 'replace')!r}..."
            )
        return [*path, *[self.img_pad_id] * (IMAGE_SLOTS - len(path))]


def read_ranks(path: Path) -> list[bytes]:
    """The bytes of each rank of a vocabulary file; raises CheckpointError, naming the line."""
    content = read_bytes(path, CheckpointError, MAX_VOCABULARY_BYTES)
    lines = without_bom(content, str(path), CheckpointError).splitlines()
    if len(lines) > MAX_RANKS:
        raise CheckpointError(f"{path}: {len(lines):,} lines, more than the limit of {MAX_RANKS:,}")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        token, wrong = _read_rank(line, len(ranks))
        if token in ranks:
            wrong = f"these bytes have rank {ranks[token]} already"
        if wrong:
            raise CheckpointError(
                f"{path}, line {number}: {wrong}: {line[:80]!r}. Copy the file again"
            )
        ranks[token] = len(ranks)
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise CheckpointError(
            f"{path}: all 256 single bytes expected in {len(lines):,} lines, {len(missing)} are "
            f"missing, the first is 0x{missing[0]:02x}. Copy the file again"
        )
    return list(ranks)


def _read_rank(line: bytes, rank: int) -> tuple[bytes, str]:
    """Bytes of one line, and what is wrong with it, if anything."""
    parts = line.split()
    if len(parts) != 2:
        return b"", "`base64 rank` expected"
    try:
        token = base64.b64decode(parts[0], validate=True)
    except binascii.Error:
        return b"", "not base64"
    if not token:
        return b"", "at least one byte expected"
    return token, "" if parts[1] == b"%d" % rank else f"rank {rank} expected"


def _find(ids: list[int], token: int, start: int) -> int | None:
    """The first place of an id at or after start."""
    try:
        return ids.index(token, start)
    except ValueError:
        return None


def _as_list(ids: Sequence[int] | Tensor) -> list[int]:
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)
