"""Qwen-VL's notation: `<img>path</img>`, `<ref>phrase</ref>`, `<box>(x1,y1),(x2,y2)</box>`.

The notation is text. This module fills a task's template and says
what an image span is.
"""

import re
from collections.abc import Mapping

from eval.errors import DataError

PLACE = re.compile(r"\{(\w+)\}")
IMAGE = re.compile(r"<img>(.*?)</img>", re.DOTALL)


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put each field's text in the template's {places}; texts are never filled again."""
    return PLACE.sub(lambda match: plain(fields, match[1]), template)


def plain(fields: Mapping[str, str], name: str) -> str:
    """A field's text. Raises DataError where it would open or close an image span of its own.

    A question must not be able to name a file.
    """
    value = fields[name]
    for tag in ("<img>", "</img>"):
        if tag in value:
            raise DataError(f"field {name!r} holds the image tag {tag}: {value[:80]!r}")
    return value
