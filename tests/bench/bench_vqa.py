"""VQA accuracy of a data set as large as VQA v2's val: a naive script beside ours, in one run.

    python tests/bench/bench_vqa.py [folder]

Writes invented questions, answers and predictions in the official format, in a temporary folder or
in the one given, and scores them by both rules, a row a sample written. Prints seconds of both,
their ratio, and the peak memory of ours, each in a process of its own, at a quarter of the size and
in full: what may grow is the ids of samples and the names of pictures, no records. Exit status 1
where a figure differs at all, ours takes more than 8 seconds, or memory grows by more than 300
bytes a sample.
"""

import itertools
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.metrics.vqa_tables import ARTICLES, CONTRACTIONS, NUMBER_WORDS, PUNCTUATION
from eval.plugins import find_tasks
from eval.run.folder import RunFolder
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import score_run

QUESTIONS, IMAGES = 214354, 40504
SEED = 2023
MOST_SECONDS = 8.0
MOST_GROWTH = 300  # bytes of memory for each further sample
NAME = "vqav2_val"
QUESTION_FILE = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATION_FILE = "vqav2/v2_mscoco_val2014_annotations.json"
METRICS = {"vqa_accuracy": "published", "vqa_accuracy_official": "official"}
GROUPS = ("answer_type", "question_type")


def write(folder: Path, questions: int) -> None:
    """Data below `folder`/data, predictions in the run `folder`/run."""
    data = folder / "data"
    (data / "vqav2").mkdir(parents=True)
    drawn = draw(questions)
    with (
        (data / QUESTION_FILE).open("w") as asked,
        (data / ANNOTATION_FILE).open("w") as annotated,
        (folder / "predictions.jsonl").open("w") as predicted,
    ):
        asked.write('{"info": {"version": "2.0"}, "task_type": "Open-Ended", "questions": [')
        annotated.write('{"info": {"version": "2.0"}, "annotations": [')
        for number, (question, annotation, prediction) in enumerate(drawn):
            asked.write(", " * bool(number) + json.dumps(question))
            annotated.write(", " * bool(number) + json.dumps(annotation))
            predicted.write(json.dumps(prediction) + "\n")
        asked.write("]}")
        annotated.write("]}")
    (task,) = find_tasks([NAME])
    model = {"checkpoint": "invented", "digest": "0" * 64, "dtype": "float32", "batch_size": 1}
    entry = spec_entry(task, data, Spec())
    RunFolder.start(folder / "run", {"model": model, "tasks": {NAME: entry}})
    (folder / "run" / NAME).mkdir()
    (folder / "predictions.jsonl").rename(folder / "run" / NAME / "predictions.jsonl")


def draw(questions: int) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(question, annotation, prediction); a word's share falls with its rank, as in a language."""
    rng = random.Random(SEED)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 8))) for _ in range(9000)]
    shares = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    forms = ("{}",) * 12 + ("the {}", "a {}", "{}.", "{}, {}", "{} {}", "{}-{}", "{}'s", "{}/{}")
    kinds = [f"what {word}" for word in words[:63]]

    def answer() -> str:
        return rng.choice(forms).format(*rng.choices(words, cum_weights=shares, k=2))

    for number in range(questions):
        image = number * IMAGES // QUESTIONS * 14 + 42
        question_id = image * 1000 + number % 1000
        kind = rng.choices(("yes/no", "number", "other"), (38, 12, 50))[0]
        near = {
            "yes/no": ["yes", "no"],
            "number": [str(rng.randint(0, 30)), "two", "1,000"],
        }.get(kind) or [answer() for _ in range(4)]
        texts = [near[0] if rng.random() < 0.6 else rng.choice(near) for _ in range(10)]
        common = {"image_id": image, "question_id": question_id}
        answers = [
            {"answer": text, "answer_confidence": "yes", "answer_id": place}
            for place, text in enumerate(texts, 1)
        ]
        yield (
            {**common, "question": f"{rng.choice(kinds)} is this {words[number % 900]}?"},
            {
                "question_type": rng.choice(kinds),
                "multiple_choice_answer": near[0],
                "answers": answers,
                "answer_type": kind,
                **common,
            },
            {
                "id": str(question_id),
                "text": " " + (near[0] if rng.random() < 0.7 else answer()),
                "tokens": [rng.randrange(151643), rng.randrange(151643), 151643],
            },
        )


def ours(folder: Path) -> dict[str, Any]:
    """What `qwen-vl-eval score` does: checks the run's data, scores, writes rows and summary."""
    (task,) = find_tasks([NAME])
    summary = score_run(RunFolder.open(folder / "run"), task, folder / "data")
    by = {group: summary["by"][group] for group in GROUPS}
    return {"metrics": summary["metrics"], "by": by}


def naive(folder: Path) -> dict[str, Any]:
    """Load all, join, apply the rules as they are written, write a row a sample."""
    with (folder / "data" / QUESTION_FILE).open() as file:
        questions = json.load(file)["questions"]
    with (folder / "data" / ANNOTATION_FILE).open() as file:
        annotations = {row["question_id"]: row for row in json.load(file)["annotations"]}
    with (folder / "run" / NAME / "predictions.jsonl").open() as file:
        predictions = {row["id"]: row["text"] for row in map(json.loads, file)}
    rows = []
    members: dict[str, dict[str, list[dict[str, Any]]]] = {group: {} for group in GROUPS}
    for question in questions:
        number = question["question_id"]
        row = {"id": str(number)}
        for name, variant in METRICS.items():
            answers = annotations[number]["answers"]
            row[name] = accuracy(predictions[str(number)], answers, variant)
        rows.append(row)
        for group, values in members.items():
            values.setdefault(annotations[number][group], []).append(row)
    with (folder / "naive.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    by = {
        group: {
            value: {"samples": len(values[value]), **means(values[value])}
            for value in sorted(values)
        }
        for group, values in members.items()
    }
    return {"metrics": means(rows), "by": by}


def accuracy(prediction: str, answers: list[dict[str, Any]], variant: str) -> float:
    """VQA accuracy of one question."""
    texts = [answer["answer"] for answer in answers]
    if variant == "official":
        texts = [clean(text) for text in texts]
        prediction = clean(prediction)
        if len(set(texts)) > 1:
            texts = [words(punctuation(text)) for text in texts]
            prediction = words(punctuation(prediction))
    else:
        prediction = words(punctuation(clean(prediction)))
        if len(set(texts)) > 1:
            texts = [punctuation(text) for text in texts]
    humans = [{**answer, "answer": text} for answer, text in zip(answers, texts, strict=True)]
    total = 0.0
    for human in humans:
        others = [other for other in humans if other != human]
        matching = [other for other in others if other["answer"] == prediction]
        total += min(1.0, len(matching) / 3)
    return total / len(humans)


def clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def punctuation(text: str) -> str:
    result = text
    for mark in PUNCTUATION:
        if mark + " " in text or " " + mark in text or re.search(r"\d,\d", text):
            result = result.replace(mark, "")
        else:
            result = result.replace(mark, " ")
    return re.sub(r"\.(?!\d)", "", result, count=32)


def words(text: str) -> str:
    kept = []
    for word in text.lower().split():
        number = NUMBER_WORDS.get(word, word)
        if number not in ARTICLES:
            kept.append(CONTRACTIONS.get(number, number))
    return " ".join(kept)


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    result = {}
    for name in METRICS:
        total = 0.0  # sum() compensates from Python 3.12 on
        for row in rows:
            total += row[name]
        result[name] = total / len(rows)
    return result


def peak(folder: Path) -> float:
    """Peak memory of ours, in MiB, in a process of its own."""
    command = [sys.executable, __file__, "--peak", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Prints the table; see the module's docstring."""
    if sys.argv[1:2] == ["--peak"]:
        ours(Path(sys.argv[2]))
        unit = 2**20 if sys.platform == "darwin" else 2**10
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
        return 0
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        folder = Path(name)
        quarter, full = folder / "quarter", folder / "full"
        write(quarter, QUESTIONS // 4)
        write(full, QUESTIONS)
        # Before anything large is held here: a new process begins with its parent's peak on Linux.
        memory = [peak(quarter), peak(full)]
        start = time.perf_counter()
        actual = ours(full)
        middle = time.perf_counter()
        expected = naive(full)
        seconds, naive_seconds = middle - start, time.perf_counter() - middle
        lines = [p.open("rb") for p in (full / "naive.jsonl", full / "run" / NAME / "scores.jsonl")]
        same = all(json.loads(a) == json.loads(b) for a, b in zip(*lines, strict=True))
        for file in lines:
            file.close()
    figures = " ".join(f"{name} {value:.6f}" for name, value in actual["metrics"].items())
    print(f"{QUESTIONS:,} questions x 10 answers: {figures}")
    print(f"figures and rows equal   {expected == actual and same}")
    print(f"naive                    {naive_seconds:.2f} s")
    print(f"ours                     {seconds:.2f} s")
    print(f"naive / ours             {naive_seconds / seconds:.1f}")
    print(f"ours, peak, a quarter    {memory[0]:.0f} MiB")
    print(f"ours, peak, in full      {memory[1]:.0f} MiB")
    growth = (memory[1] - memory[0]) * 2**20 / (QUESTIONS - QUESTIONS // 4)
    print(f"growth                   {growth:.0f} bytes a sample")
    return int(expected != actual or not same or seconds > MOST_SECONDS or growth > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
