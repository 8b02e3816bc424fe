"""Result files of the published scripts, for scoring old answers again.

    [{"question_id": 42000, "answer": "yes"}]       VQA
    [{"questionId": 101, "answer": "May 3"}]        GQA, OCR-VQA, DocVQA
    [{"image_id": 42, "caption": "A goat."}]        captions
    [{"image": 7, "answer": "soup"}]                AI2D, VizWiz test
    [{"answer": "5", "annotation": "5"}]            ChartQA: no ids, in the order of the data

as one list or as JSON lines; other fields are ignored.
"""

from pathlib import Path

from eval.data.files import is_list, read_jsonl, read_list
from eval.data.records import Record
from eval.errors import DataError, PredictionError

IDS = ("question_id", "questionId", "image_id", "image")
TEXTS = ("answer", "caption")


def read_predictions(path: Path) -> list[tuple[str | None, str]]:
    """(sample id, text) of each record, in the order of the file; ids may repeat.

    The id is None throughout if the file has no ids. Raises PredictionError, naming file and
    record, if only some records have one.
    """
    predictions: list[tuple[str | None, str]] = []
    try:
        for row in read_list(path) if is_list(path) else read_jsonl(path):
            name = _field(row, IDS)
            if predictions and (name is None) != (predictions[0][0] is None):
                raise row.error(
                    f"one of the fields {', '.join(IDS)} expected in every record or in none"
                )
            text = _field(row, TEXTS)
            if text is None:
                raise row.error(f"one of the fields {', '.join(TEXTS)} expected, none found")
            predictions.append((row.id(name) if name else None, row.text(text)))
    except DataError as error:
        raise PredictionError(str(error)) from error
    if not predictions:
        raise PredictionError(f"{path}: predictions expected, none found")
    return predictions


def _field(row: Record, names: tuple[str, ...]) -> str | None:
    """The first of the names that the record has."""
    return next((name for name in names if row.has(name)), None)
