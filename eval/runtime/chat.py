"""Dialogues with Qwen-VL-Chat: ChatML in, the reply's text out.

Only the nine image tags are special in what people write: an `<|im_end|>` typed by a user is
ordinary text. The other format, `raw`, has no template: encode the text as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from unicodedata import normalize

from torch import Tensor

from eval.runtime.notation import SYSTEM as SYSTEM
from eval.runtime.tokenizer import Tokenizer

WINDOW = 6144  # ids of system text and history that the published Chat model keeps

Turn = tuple[str, str | None]  # a query and its reply, None where it has none yet
Piece = str | int  # what people wrote, or the id of a control token


class ChatPrompt(NamedTuple):
    """A dialogue whose next turn is the assistant's.

    ids    nothing but `<imgpad>` in image slots
    paths  of the images, in reading order, as they are written
    text   the same dialogue as one text, not normalised
    """

    ids: list[int]
    paths: list[str]
    text: str


def chat_prompt(
    tokenizer: Tokenizer,
    query: str,
    history: Sequence[Turn] = (),
    system: str = SYSTEM,
    max_window_size: int = WINDOW,
) -> ChatPrompt:
    """ChatML ids, image paths of any length, and text of a dialogue.

    history          (query, reply) pairs, oldest first
    max_window_size  the newest turns are kept while system block and turns stay below so many ids;
                     the query is not counted

    Raises ValueError where an image tag is not closed.
    """

    def encode(text: str) -> tuple[list[int], list[str]]:
        return tokenizer.encode_prompt(text, image_tags_only=True)

    return _dialogue(tokenizer, encode, query, history, system, max_window_size)


def chat_ids(
    tokenizer: Tokenizer,
    query: str,
    history: Sequence[Turn] = (),
    system: str = SYSTEM,
    max_window_size: int = WINDOW,
) -> list[int]:
    """The same ids as the original has them, with the paths' bytes in image slots.

    Raises ValueError or TypeError where `Tokenizer.encode` does, for a long path say.
    """

    def encode(text: str) -> tuple[list[int], list[str]]:
        return tokenizer.encode(text, image_tags_only=True), []

    return _dialogue(tokenizer, encode, query, history, system, max_window_size).ids


def decode_reply(tokenizer: Tokenizer, prompt: ChatPrompt, new_ids: Sequence[int] | Tensor) -> str:
    """The reply in newly generated ids, trimmed as the published Chat model's code does.

    It ends before the first `<|im_end|>` or `<|im_start|>`; special tokens before that stay as
    text. Quirks kept as in the original: without a stop word the last id is dropped, whatever it
    is; and the reply is what follows len(prompt.text) characters of the *normalised* dialogue, so
    a prompt that isn't NFC costs the reply's first characters.

    Where the original raises, for a stray `<img>` say, `Tokenizer.decode_answer` says what is read.
    """
    ids = new_ids.tolist() if isinstance(new_ids, Tensor) else list(new_ids)
    stops = [i for i, new in enumerate(ids) if new in (tokenizer.im_start_id, tokenizer.im_end_id)]
    reply = tokenizer.decode_answer(
        ids[: stops[0]] if stops else ids[:-1], skip_special_tokens=False
    )
    return (normalize("NFC", prompt.text) + reply)[len(prompt.text) :].strip()


def _dialogue(
    tokenizer: Tokenizer,
    encode: Callable[[str], tuple[list[int], list[str]]],
    query: str,
    history: Sequence[Turn],
    system: str,
    max_window_size: int,
) -> ChatPrompt:
    start, end = tokenizer.im_start_id, tokenizer.im_end_id

    def block(role: str, content: str) -> list[Piece]:
        return [start, role, "\n", content, end]

    def encoded(pieces: Iterable[Piece]) -> ChatPrompt:
        """Each piece encoded on its own, and joined."""
        parts = []
        for piece in pieces:
            if isinstance(piece, str):
                parts.append(ChatPrompt(*encode(piece), piece))
            else:
                name = tokenizer.decode([piece], skip_special_tokens=False)
                parts.append(ChatPrompt([piece], [], name))
        return _joined(parts)

    opening = encoded(block("system", system))
    room = max_window_size - len(opening.ids)
    turns: list[ChatPrompt] = []  # newest first
    for question, reply in reversed(history):
        answer = [] if reply is None else block("assistant", reply)
        turn = encoded(["\n", *block("user", question), "\n", *answer])
        room -= len(turn.ids)
        if room <= 0:
            break
        turns.append(turn)
    closing = encoded(["\n", *block("user", query), "\n", start, "assistant", "\n"])
    return _joined([opening, *reversed(turns), closing])


def _joined(parts: Sequence[ChatPrompt]) -> ChatPrompt:
    return ChatPrompt(
        [i for part in parts for i in part.ids],
        [path for part in parts for path in part.paths],
        "".join(part.text for part in parts),
    )
