"""Samples as scripts of data, since a page that is opened as a file may not fetch anything.

    index.html, *.js, app.css     the page
    data/tasks.js                 the runs and the tasks
    data/<task>/index.js          columns to filter by: ids, values, groups
    data/<task>/chunk-<n>.js      some hundred samples in full

The page inserts every text as text, never as markup.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eval.report.browser.rows import AnswerView, SampleView

AT_ONCE = 500  # samples of a chunk, at most
LARGEST = 1 << 20  # bytes, after which a chunk ends
LONGEST = 10_000  # characters of a text, after which it is cut off
OPENING = (  # bytes that could end a script or a string in it, and their JSON escapes
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\N{LINE SEPARATOR}".encode(), rb"\u2028"),
    ("\N{PARAGRAPH SEPARATOR}".encode(), rb"\u2029"),
)


@dataclass(slots=True)
class GroupColumn:
    """A group: its values, and each sample's as a number, -1 where it has none."""

    values: dict[str, int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)


def sample_data_script(name: str, value: Any) -> bytes:
    """A script that puts a value into the page's store under a name."""
    return _script(name, orjson.dumps(value))


def write_task(
    folder: Path,
    task: str,
    rows: Iterable[SampleView],
    turned: Callable[[str], int] = lambda path: 1,
) -> dict[str, Any]:
    """Write a task's index and chunks; returns its entry of tasks.js.

    folder  of this task
    turned  path of a picture -> its orientation, which browsers apply and models do not
    """
    folder.mkdir(parents=True)
    ids: list[str] = []
    values: list[list[float | None]] = []
    groups: dict[str, GroupColumn] = {}
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
            column = groups.setdefault(name, GroupColumn())
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
    (folder / "index.js").write_bytes(sample_data_script(f"{task}/index", index))
    return {"name": task, "samples": len(ids), "metrics": list(metrics)}


def _script(name: str, text: bytes) -> bytes:
    for char, code in OPENING:
        text = text.replace(char, code)
    return b"(window.parts ??= {})[" + orjson.dumps(name) + b"] = " + text + b";\n"


def _sample(row: SampleView, metrics: Sequence[str], turned: Sequence[int]) -> dict[str, Any]:
    """What is shown of a sample beside what the index has."""
    shown = {
        "texts": [[name, _text(text)] for name, text in row.texts],
        "prompt": _text(row.prompt),
        "images": row.images,
        "turned": turned if any(each != 1 for each in turned) else None,
        "references": [[_text(text), count] for text, count in row.references],
        "options": list(map(_text, row.options)),
        "box": _box(row.box),
        "answers": [_answer(answer, metrics) if answer else None for answer in row.answers],
    }
    return {name: value for name, value in shown.items() if value}


def _answer(answer: AnswerView, metrics: Sequence[str]) -> Mapping[str, Any]:
    shown = {
        "text": _text(answer.text),
        "error": _text(answer.error),
        "values": [answer.values.get(name) for name in metrics] if answer.values else None,
        "box": _box(answer.box),
        "iou": None if answer.iou is None or math.isnan(answer.iou) else round(answer.iou, 4),
        "losses": answer.losses,
    }
    return {name: value for name, value in shown.items() if value not in (None, "", ())}


def _box(box: Sequence[float] | None) -> list[float] | None:
    """Rounded to less than a pixel of any picture; None if it cannot be drawn."""
    if box is None or not all(map(math.isfinite, box)):
        return None
    return [round(float(side), 6) for side in box]


def _text(text: str) -> str:
    """A text, cut off after LONGEST characters."""
    if len(text) <= LONGEST:
        return _whole(text)
    return _whole(f"{text[:LONGEST]} … (cut off: {len(text):,} characters in all)")


def _whole(text: str) -> str:
    """A text without lone surrogates, which cannot be written."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
