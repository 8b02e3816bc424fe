"""The demo's stand-in for the servers that score test splits: it knows what was drawn.

It reads the very file that would be sent, so every run of the demo exercises the formats.
"""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.demo.writer import TRUTH
from eval.errors import DataError
from eval.metrics import anls, cider, grit_summary, vqa_accuracy
from eval.storage.reading import parse_json, read_bytes

Scores = dict[str, float]


def score_submission(data: Path, task: str, submission: Path) -> Scores:
    """Metric -> value, as a summary holds it, of a submission file for drawn data.

    Raises DataError where the data are not the demo's or the file lacks an answer.
    """
    truth_file = data / TRUTH / f"{task}.json"
    if task not in SERVERS or not truth_file.is_file():
        raise DataError(f"{truth_file}: what was drawn for {task} expected, none found")
    truth: dict[str, Any] = _read_json(truth_file)
    score, key, text = SERVERS[task]
    if submission.suffix == ".zip":
        with zipfile.ZipFile(submission) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/refexp.json"))
            rows = json.loads(archive.read(member))
    else:
        rows = _read_json(submission)
    answers = {str(row[key]): row[text] if text else row for row in rows}
    missing = [sample_id for sample_id in truth if sample_id not in answers]
    if missing:
        raise DataError(f"{submission}: {len(missing)} answers are missing, {missing[0]} first")
    return score(answers, truth)


def _read_json(file: Path) -> Any:
    return parse_json(read_bytes(file, DataError), str(file), DataError)


def _mean_of(name: str, metric: Callable[[str, Sequence[str]], float]) -> Callable[..., Scores]:
    def score(answers: Mapping[str, str], truth: Mapping[str, Sequence[str]]) -> Scores:
        values = [metric(answers[key], references) for key, references in truth.items()]
        return {name: sum(values) / len(values)}

    return score


def _vqa(prediction: str, answers: Sequence[str]) -> float:
    return vqa_accuracy(prediction, answers, variant="official")


def _captions(answers: Mapping[str, str], truth: Mapping[str, Sequence[str]]) -> Scores:
    values = cider([answers[key] for key in truth], list(truth.values()))
    return {"cider": sum(values) / len(values)}


def _grit(answers: Mapping[str, Any], truth: Mapping[str, Any]) -> Scores:
    summary = grit_summary(list(truth.values()), list(answers.values()))
    return {"accuracy": summary["acc.any.agg.ref.mean"] / 100}


_VQA = (_mean_of("vqa_accuracy", _vqa), "question_id", "answer")
SERVERS: dict[str, tuple[Callable[..., Scores], str, str]] = {  # scorer, key, text of a row
    "vqav2_testdev": _VQA,
    "vqav2_test": _VQA,
    "vizwiz_test": (_mean_of("vqa_accuracy", _vqa), "image", "answer"),
    "docvqa_test": (_mean_of("anls", anls), "questionId", "answer"),
    "nocaps_test": (_captions, "image_id", "caption"),
    "grit_refexp_ablation": (_grit, "example_id", ""),
    "grit_refexp_test": (_grit, "example_id", ""),
}
