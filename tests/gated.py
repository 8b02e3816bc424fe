"""Runs for the gate: folders as a run and its scoring leave them behind, and the command."""

import json
import random

from small import command

from eval.api import Generate, Prediction
from eval.data.declare import Sample, Task
from eval.report.card import load_card
from eval.run.folder import RunFolder
from eval.scoring.score import Scoring
from eval.storage.writing import write_rows

CARD = load_card()
MAIN = {name: c.metric for table in CARD.tables for c in table.columns for name in c.tasks}
DECODE = {"greedy": True, "max_new_tokens": 10, "min_new_tokens": 1}
ENTRY = {
    "prompt": "<img>{image}</img>{question} Answer:",
    "protocol": "published",
    "decode": DECODE,
    "size": 5046,
    "limit": None,
    "layout": "official",
    "sources": {"okvqa/questions.json": "1" * 64, "okvqa/annotations.json": "2" * 64},
}
CODES = {"pass": 0, "regressed": 10, "inconclusive": 11, "invalid": 12}


def rows_of(values, questions=2):
    """(sample id, image, value): so many questions on an image."""
    return [(str(n), f"img/{n // questions}.jpg", value) for n, value in enumerate(values)]


def lowered(rows, count):
    """The same with the first so many values that are not 0 made 0."""
    found = []
    for sample, image, value in rows:
        found.append((sample, image, 0.0 if value and count else value))
        count -= bool(value and count)
    return found


def make_run(
    folder, tasks, *, entries=None, hidden=(), failed=(), server=None, name=None, metrics=None
):
    """A run folder as a run and its scoring leave it behind.

    tasks    name -> (sample id, image, value); entries: of its manifest, where they are not ENTRY
    hidden   tasks whose samples have no reference; failed: ids of samples without an answer
    server   task -> what a server or judge gave; metrics: task -> another metric
    """
    told = {task: ENTRY | (entries or {}).get(task, {}) for task in tasks}
    model = {"checkpoint": "a", "digest": "0" * 64, "chat_format": "raw"}
    run = RunFolder.start(folder, {"name": name or folder.name, "model": model, "tasks": told})
    for task, rows in tasks.items():
        samples = [
            Sample(sample, {"image": image} if image else {}, None if task in hidden else "?")
            for sample, image, _ in rows
        ]
        answers = [
            Prediction(sample, "", error="out of memory")
            if sample in failed
            else Prediction(sample, repr(value))
            for sample, _, value in rows
        ]
        metric = (metrics or {}).get(task, lambda text, _: float(text))
        named = {MAIN.get(task, "vqa_accuracy"): metric}
        scored = Task(task, len(rows), (), "", Generate(10), named)
        scoring = Scoring(scored, {"eval": "0"}, told[task])
        scoring.server = (server or {}).get(task, {})
        (folder / task).mkdir()
        write_rows(
            folder / task / "predictions.jsonl",
            (
                {"id": a.id, "text": a.text, **({"error": a.error} if a.error else {})}
                for a in answers
            ),
        )
        run.scores(task).write(scoring.rows(samples, answers), scoring.summary)
    return folder


def compare(base, candidate, *more):
    """The command; whatever the folders hold, no exception comes out of it."""
    done = command("compare", base, candidate, *more)
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert all(char.isprintable() or char == "\n" for char in done.stdout)
    return done


def gate(base, candidate, *more):
    """The command as a CI runs it: its exit code, its text, and its JSON."""
    file = base.parent / "gate.json"
    done = compare(base, candidate, "--gate", "--json", file, *more)
    assert file.is_file(), done.stderr
    told = json.loads(file.read_bytes())
    assert CODES[told["verdict"]] == told["exit_code"] == done.returncode
    return told, done.stdout


def by_task(told):
    return {each["task"]: each for each in told["benchmarks"]}


def draw(count, seed=0, share=0.6):
    drawn = random.Random(seed)
    return [float(drawn.random() < share) for _ in range(count)]
