"""What the judge is asked: the published words, taken from the authors' script, or our own.

The published prompt belongs to the benchmark's authors and stands nowhere in this repository. What
stands here are digests, by which it is known when it is found.
"""

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path

import orjson

from eval.errors import DataError
from eval.storage.reading import Schema, read_bytes

PLACES = ("human_annotation", "question", "answer_1", "answer_2", "prompt")
NAMED = re.compile(rf"\{{({'|'.join(PLACES)})\}}")
PLACE = re.compile(r"\{[^{}\n]*\}|%s|%\(\w+\)s")  # as a script may write one
BARE = "{}"  # a place whose name does not matter
SCRIPT_BYTES = 1_000_000
TEXT_CHARACTERS = 4_000  # of one text of a script; longer ones are passed over


@dataclass(frozen=True, slots=True)
class Digests:
    """SHA-256 of a prompt's texts, hexadecimal; of its template with bare places."""

    system: str
    template: str
    instruction: str


PUBLISHED_TEXTS = Digests(
    system="8ec001fd8f1a623f9e444c9eca7be1cc3ee529003e931167a1b44958132baf33",
    template="c6696b957150d446f21330e26e99c70a38169ede50d92a4cd799aea24df33648",
    instruction="b7a431dc6985138ce0d39e6887868894e722ef5db34ea65e0a0e3fe2fce1f499",
)
PUBLISHED = "9680d3c68ecc9e7a48a446c9bcd98aebdaea6e1c96acd067fcfd5367fb9878df"  # JudgePrompt.digest


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """What a judge is asked.

    system       the system's turn
    template     the user's turn, with the places {human_annotation}, {question}, {answer_1},
                 {answer_2} and {prompt}, each once; the last is the instruction's
    instruction  what is to be done

    Raises DataError for a text that is empty, or a template that lacks or repeats a place.
    """

    system: str
    template: str
    instruction: str

    def __post_init__(self) -> None:
        for name in ("system", "template", "instruction"):
            if not getattr(self, name).strip():
                raise DataError(f"field {name!r}: the text is empty")
        places = NAMED.findall(self.template)
        for name in PLACES:
            if (count := places.count(name)) != 1:
                raise DataError(
                    f"field 'template': the place {{{name}}} once expected, found {count} times"
                )

    @property
    def digest(self) -> str:
        """SHA-256 of the three texts, hexadecimal."""
        texts = [self.system, self.template, self.instruction]
        return hashlib.sha256(orjson.dumps(texts)).hexdigest()

    @property
    def published(self) -> bool:
        """Whether it is the authors', to the letter."""
        return self.digest == PUBLISHED

    def messages(
        self, annotation: str, question: str, answer_1: str, answer_2: str
    ) -> list[dict[str, str]]:
        """What is sent; a text is never filled again, whatever braces it holds."""
        texts = (annotation, question, answer_1, answer_2, self.instruction)
        told = dict(zip(PLACES, texts, strict=True))
        user = NAMED.sub(lambda place: told[place[1]], self.template)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


PROMPT = Schema[JudgePrompt](JudgePrompt)
OWN = JudgePrompt(
    system="You grade answers about pictures that you cannot see. Trust the description you get.",
    template=(
        "What the pictures show, written down by a person who saw them:\n{human_annotation}\n\n"
        "What was asked about them:\n{question}\n\n"
        "--- first answer ---\n{answer_1}\n\n"
        "--- second answer ---\n{answer_2}\n\n"
        "--- your task ---\n{prompt}\n"
    ),
    instruction=(
        "Grade both answers with whole or half points from 1 (useless) to 10 (nothing is missing, "
        "nothing is wrong). Ask yourself of each: does it do what was asked, is it true of the "
        "pictures as described, does it say enough? A longer answer is not a better one, and that "
        "one stands first and the other second means nothing: they were put so by chance.\n"
        "Write the grade of the first answer, one space, and the grade of the second, such as "
        "6.5 8, and nothing else on that line. If you want to give reasons, do so below it."
    ),
)


def read_prompt(path: Path) -> JudgePrompt:
    """The prompt of a file: the authors' script (.py), or an object with the three texts (.json).

    Other fields of the object are passed over. Raises DataError for a file without a prompt.
    """
    kind = path.suffix.lower()
    if kind == ".py":
        return extract(path)
    if kind != ".json":
        raise DataError(f"{path}: a judge's prompt in a file .json, or the authors' .py, expected")
    content = read_bytes(path, DataError, SCRIPT_BYTES)
    try:
        return PROMPT.parse(content, str(path), DataError)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def extract(script: Path, wanted: Digests = PUBLISHED_TEXTS) -> JudgePrompt:
    """The prompt whose texts stand in a Python script, which is read and never run.

    wanted  by which the texts are known, however the script writes them and names their places

    Raises DataError where the file is no Python, or one of the texts is not in it.
    """
    source = read_bytes(script, DataError, SCRIPT_BYTES)
    texts = _Texts(wanted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the script's escapes
            tree = ast.parse(source)
        texts.spell(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(
            f"{script}: the authors' Python script expected, {type(error).__name__} found ({error})"
            f". {BY_HAND}"
        ) from None
    missing = [name for name in ("system", "template", "instruction") if name not in texts.found]
    if missing:
        raise DataError(
            f"{script}: the judge's published prompt expected; no text in it is its "
            f"{' or its '.join(missing)}. {BY_HAND}"
        )
    places = iter(PLACES)
    template = re.sub(re.escape(BARE), lambda _: f"{{{next(places)}}}", texts.found["template"])
    return JudgePrompt(texts.found["system"], template, texts.found["instruction"])


BY_HAND = "Give the prompt by hand: --judge-prompt FILE.json"


@dataclass(slots=True)
class _Texts:
    """Texts that a script spells, compared with the wanted ones as they come.

    found  name -> text, the template's with bare places
    """

    wanted: Digests
    found: dict[str, str] = field(default_factory=dict)

    def spell(self, node: ast.AST) -> str | None:
        """What a node spells, expressions in it as bare places; None for what is no text.

        All that is below it is looked at too, once.
        """
        text = self._spelled(node)
        if text is not None and len(text) <= TEXT_CHARACTERS:
            self._compare(text)
            return text
        return None

    def _spelled(self, node: ast.AST) -> str | None:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.FormattedValue():
                self._below(node)
                return BARE
            case ast.JoinedStr(values=values):
                return self._joined("", values)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                first, second = self.spell(left), self.spell(right)
                if first is second is None:
                    return None
                return (BARE if first is None else first) + (BARE if second is None else second)
            case ast.BinOp(left=left, op=ast.Mod()):
                self.spell(node.right)
                return self.spell(left)
            case ast.Call(func=ast.Attribute(value=receiver, attr="join"), args=[argument]):
                between = self.spell(receiver)
                if between is not None and isinstance(argument, ast.List | ast.Tuple):
                    return self._joined(between, argument.elts)
                self.spell(argument)
            case _:
                self._below(node)
        return None

    def _joined(self, between: str, nodes: list[ast.expr]) -> str:
        parts = [self.spell(node) for node in nodes]
        return between.join(BARE if part is None else part for part in parts)

    def _below(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self.spell(child)

    def _compare(self, text: str) -> None:
        for variant in _variants(text):
            bare = PLACE.sub(BARE, variant)
            digest, template = _sha256(variant), _sha256(bare)
            if digest == self.wanted.system:
                self.found["system"] = variant
            if digest == self.wanted.instruction:
                self.found["instruction"] = variant
            if template == self.wanted.template:
                self.found["template"] = bare


def _variants(text: str) -> Iterator[str]:
    """A text as it stands, and with the white space that a script may have beside or within it."""
    inner = cleandoc(text).strip()
    yield from dict.fromkeys((text, text.strip(), f"{text.strip()}\n\n", inner, f"{inner}\n\n"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
