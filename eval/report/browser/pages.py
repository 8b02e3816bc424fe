"""Rows as files: scripts of data that a page in a file may load, for it may fetch nothing.

    index.html, *.js, app.css     the page
    data/tasks.js                 the runs and the tasks
    data/<task>/index.js          columns of what is filtered by: ids, values, groups
    data/<task>/chunk-<n>.js      some hundred samples: all that is shown

Every text is data here: the page puts it in as text, never as markup.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eval.report.browser.rows import Answer, Row

AT_ONCE = 500  # samples of a chunk, at most
LARGEST = 1 << 20  # bytes of a chunk, above which it ends
LONGEST = 10_000  # characters of a text, above which it is cut off
OPENING = (  # what could end a script or a string in it, and how JSON writes it otherwise
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\N{LINE SEPARATOR}".encode(), rb"\u2028"),
    ("\N{PARAGRAPH SEPARATOR}".encode(), rb"\u2029"),
)


@dataclass(slots=True)
class Column:
    """A group: its values, and each sample's as a number, -1 where it has none."""

    values: dict[str, int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)


def script(name: str, value: Any) -> bytes:
    """A script that puts a value into the page's store, under a name."""
    return _script(name, orjson.dumps(value))


def write_task(
    folder: Path, task: str, rows: Iterable[Row], turned: Callable[[str], int] = lambda path: 1
) -> dict[str, Any]:
    """Write a task's index and chunks; what tasks.js says of it.

    folder  of this task
    turned  path of a picture -> how browsers turn it, and the model does not: see Pictures
    """
    folder.mkdir(parents=True)
    ids: list[str] = []
    values: list[list[float | None]] = []
    groups: dict[str, Column] = {}
    metrics: dict[str, None] = {}
    starts = [0]
    chunk: list[bytes] = []
    size = 0

    def close() -> None:
        number = len(starts) - 1
        content = _script(f"{task}/{number}", b"[\n" + b",\n".join(chunk) + b"\n]")
        (folder / f"chunk-{number:04}.js").write_bytes(content)

    for row in rows:
        if len(chunk) == AT_ONCE or size > LARGEST:
            close()
            starts.append(len(ids))
            chunk, size = [], 0
        for answer in row.answers:
            metrics.update(dict.fromkeys(answer.values if answer else ()))
        main = next(iter(metrics), "")
        values.append([answer.values.get(main) if answer else None for answer in row.answers])
        for name, value in row.groups.items():
            column = groups.setdefault(name, Column())
            column.codes += [-1] * (len(ids) - len(column.codes))
            column.codes.append(column.values.setdefault(_whole(value), len(column.values)))
        ids.append(_whole(row.id))
        chunk.append(orjson.dumps(_sample(row, list(metrics), list(map(turned, row.images)))))
        size += len(chunk[-1])
    close()
    for column in groups.values():
        column.codes += [-1] * (len(ids) - len(column.codes))
    index = {
        "ids": ids,
        "starts": starts,
        "values": list(map(list, zip(*values, strict=True))),
        "groups": [[name, list(c.values), c.codes] for name, c in groups.items()],
    }
    (folder / "index.js").write_bytes(script(f"{task}/index", index))
    return {"name": task, "samples": len(ids), "metrics": list(metrics)}


def _script(name: str, text: bytes) -> bytes:
    for char, code in OPENING:
        text = text.replace(char, code)
    return b"(window.parts ??= {})[" + orjson.dumps(name) + b"] = " + text + b";\n"


def _sample(row: Row, metrics: Sequence[str], turned: Sequence[int]) -> dict[str, Any]:
    """What is shown of a sample, as far as the index does not tell it."""
    told = {
        "texts": [[name, _text(text)] for name, text in row.texts],
        "prompt": _text(row.prompt),
        "images": row.images,
        "turned": turned if any(each != 1 for each in turned) else None,
        "references": [[_text(text), count] for text, count in row.references],
        "options": list(map(_text, row.options)),
        "box": _box(row.box),
        "answers": [_answer(answer, metrics) if answer else None for answer in row.answers],
    }
    return {name: value for name, value in told.items() if value}


def _answer(answer: Answer, metrics: Sequence[str]) -> Mapping[str, Any]:
    told = {
        "text": _text(answer.text),
        "error": _text(answer.error),
        "values": [answer.values.get(name) for name in metrics] if answer.values else None,
        "box": _box(answer.box),
        "iou": None if answer.iou is None or math.isnan(answer.iou) else round(answer.iou, 4),
        "losses": answer.losses,
    }
    return {name: value for name, value in told.items() if value not in (None, "", ())}


def _box(box: Sequence[float] | None) -> list[float] | None:
    """Six decimals are less than a pixel of any picture; None for what cannot be drawn."""
    if box is None or not all(map(math.isfinite, box)):
        return None
    return [round(float(side), 6) for side in box]


def _text(text: str) -> str:
    """A text as far as it is shown."""
    if len(text) <= LONGEST:
        return _whole(text)
    return _whole(f"{text[:LONGEST]} … (cut off: {len(text):,} characters in all)")


def _whole(text: str) -> str:
    """Half a surrogate pair is no character, and cannot be written."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
