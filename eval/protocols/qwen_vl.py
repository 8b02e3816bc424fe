"""Qwen-VL's protocols: a task's template becomes the text that the model is given.

published  raw prompts for both models, as in the authors' scripts: the card's
chatml     a dialogue of one turn, for Chat checkpoints
"""

import re
from collections.abc import Mapping, Sequence

from eval.data.declare import Sample, Task, image_paths
from eval.errors import DataError, UsageError
from eval.runtime.notation import IMAGE as IMAGE
from eval.runtime.notation import SYSTEM as SYSTEM

PUBLISHED = "published"
CHATML = "chatml"
PROTOCOLS = (PUBLISHED, CHATML)
PLACE = re.compile(r"\{(\w+)\}")
PICTURES = "pictures"  # the place of all of a sample's images


def prompt(task: Task, sample: Sample, protocol: str, examples: Sequence[Sample] = ()) -> str:
    """A sample's prompt, or the user's turn of a dialogue.

    examples  of the training split, put before the question with their answers

    Raises UsageError for a protocol that does not fit the task, DataError for a field that holds an
    image tag.
    """
    if protocol == CHATML:
        if not task.chat:
            raise UsageError(f"{task.name}: has no prompt in protocol {CHATML}")
        if examples:
            raise UsageError(f"protocol {CHATML} takes no few-shot examples; {PUBLISHED} does")
        return fill_template(task.chat, sample.fields)
    if protocol != PUBLISHED:
        raise UsageError(f"protocol {protocol!r}: one of {', '.join(PROTOCOLS)} expected")
    if task.dialogue and examples:
        raise UsageError(f"{task.name}: a dialogue takes no few-shot examples")
    # nothing stands between examples: each is its own prompt, a space and its answer
    shown = f"{task.prompt} {{answer}}"
    shots = "".join(fill_template(shown, example.fields) for example in examples)
    return shots + fill_template(task.prompt, sample.fields)


def is_dialogue(task: Task, protocol: str) -> bool:
    """Whether a task's prompt is the user's turn of a dialogue."""
    return protocol == CHATML or task.dialogue


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """Put each field's text in the template's {places}; texts are never filled again.

    {pictures} is a line for each image, `Picture 1: <img>path</img>`, as Qwen-VL-Chat was taught.
    """

    def text(match: re.Match[str]) -> str:
        if match[1] != PICTURES:
            return plain_field(fields, match[1])
        paths = (plain_field({"image": path}, "image") for path in image_paths(fields))
        return "".join(f"Picture {n}: <img>{path}</img>\n" for n, path in enumerate(paths, 1))

    return PLACE.sub(text, template)


def plain_field(fields: Mapping[str, str], name: str) -> str:
    """A field's text. Raises DataError where it would open or close an image span of its own.

    A question must not be able to name a file.
    """
    value = fields[name]
    for tag in ("<img>", "</img>"):
        if tag in value:
            raise DataError(f"field {name!r} holds the image tag {tag}: {value[:80]!r}")
    return value
