"""Qwen-VL's notation: `<img>path</img>`, `<ref>phrase</ref>`, `<box>(x1,y1),(x2,y2)</box>`.

The notation is text. This module fills a task's template and says
what an image span is.
"""

import re
from collections.abc import Mapping

from eval.errors import DataError

PLACE = re.compile(r"\{(\w+)\}")
SYSTEM = "You are a helpful assistant."  # of every dialogue, as Qwen-VL-Chat was taught
PICTURES = "pictures"  # the place of all of a sample's images
IMAGE = re.compile(r"<img>(.*?)</img>", re.DOTALL)


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put each field's text in the template's {places}; texts are never filled again.

    {pictures} is a line for each image, `Picture 1: <img>path</img>`, as Qwen-VL-Chat was taught.
    """

    def text(match: re.Match[str]) -> str:
        if match[1] != PICTURES:
            return plain(fields, match[1])
        paths = (plain({"image": path}, "image") for path in images(fields))
        return "".join(f"Picture {n}: <img>{path}</img>\n" for n, path in enumerate(paths, 1))

    return PLACE.sub(text, template)


def images(fields: Mapping[str, str]) -> tuple[str, ...]:
    """The paths in `image`, `image_2`, `image_3` and so on, up to the first that there is not."""
    found: list[str] = []
    while path := fields.get(f"image_{len(found) + 1}" if found else "image"):
        found.append(path)
    return tuple(found)


def plain(fields: Mapping[str, str], name: str) -> str:
    """A field's text. Raises DataError where it would open or close an image span of its own.

    A question must not be able to name a file.
    """
    value = fields[name]
    for tag in ("<img>", "</img>"):
        if tag in value:
            raise DataError(f"field {name!r} holds the image tag {tag}: {value[:80]!r}")
    return value
