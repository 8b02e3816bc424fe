"""Result files of the published scripts, read so that old answers can be scored again.

    [{"question_id": 42000, "answer": "yes"}]       VQA
    [{"questionId": 101, "answer": "May 3"}]        GQA, OCR-VQA, DocVQA
    [{"image_id": 42, "caption": "A goat."}]        captions
    [{"image": 7, "answer": "soup"}]                AI2D, VizWiz test

as one list or as JSON lines; other fields are passed over. ChartQA's carry no id and are refused.
"""

from pathlib import Path

from eval.data.files import is_list, read_jsonl, read_list
from eval.data.records import Record
from eval.errors import DataError, PredictionError

IDS = ("question_id", "questionId", "image_id", "image")
TEXTS = ("answer", "caption")


def read_predictions(path: Path) -> list[tuple[str, str]]:
    """(sample id, text) of each record, in the order of the file; an id may stand twice.

    Raises PredictionError, naming file and record.
    """
    try:
        rows = read_list(path) if is_list(path) else read_jsonl(path)
        found = [(row.id(_field(row, IDS)), row.text(_field(row, TEXTS))) for row in rows]
    except DataError as error:
        raise PredictionError(str(error)) from error
    if not found:
        raise PredictionError(f"{path}: predictions expected, none found")
    return found


def _field(row: Record, names: tuple[str, ...]) -> str:
    """The first of the names that the record has."""
    for name in names:
        if row.has(name):
            return name
    raise row.error(f"one of the fields {', '.join(names)} expected, none found")
