"""TouchStone: dialogues about pictures, whose answers a judge compares with reference answers.

Paper     Bai et al. 2023, https://arxiv.org/abs/2308.16890
Split     English, 908 questions in five categories (description, recognition, comprehension,
          storytelling, several pictures) and 27 kinds of task. The Chinese set was never
          published: touchstone_cn is computed of a table that a user brings
Protocol  the Chat model's dialogue of one turn; nucleus sampling, top_p 0.3, at most 512 new
          tokens: the checkpoint's own settings, for those behind the card are not published
Metric    mean score, 1 to 10, that a judge gives the answer beside a reference answer, asked in
          both orders; x 100
Departs   each question is drawn with a seed of its own
Known     "gpt-4", the authors' judge, names other models today than in 2023, and figures of two
          judges do not compare. Their script stops, before it asks anything, at a name that is not
          defined
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from eval import Build, ByHand, Download, Expect, Layout, Nucleus, Sample, Source, Submission, Task
from eval.errors import DataError, UsageError
from touchstone.table import Dialogue, read_index, write_answers, write_index

SITE = "https://github.com/OFA-Sys/TouchStone"
URL = "https://touchstone-beijing.oss-cn-beijing.aliyuncs.com/dataset/touchstone_20230831.tsv"
TABLES = {
    "touchstone_en": "touchstone/touchstone_20230831",
    "touchstone_cn": "touchstone/touchstone_cn",
}
# The judge's prompt is the authors' and not ours to copy: it is taken from their script. No commit
# is known; pinned are the digests of the texts in it (touchstone/prompt.py).
SCRIPT = Download(
    "https://raw.githubusercontent.com/OFA-Sys/TouchStone/main/eval.py", "touchstone/eval.py"
)
TASK_NAMES = 27  # of the English set
PROMPT = "{pictures}{question}"
DECODE = Nucleus(max_new_tokens=512, top_p=0.3)


def dialogues(root: Path, task: str) -> Iterator[Dialogue]:
    """The dialogues of a task, in the order of its table."""
    if task not in TABLES:
        raise UsageError(f"{task}: one of {', '.join(TABLES)} expected")
    return read_index(root, f"{TABLES[task]}.jsonl", f"{TABLES[task]}.tsv", task)


def answered(root: Path, task: str, answers: Mapping[str, str]) -> list[Dialogue]:
    """The dialogues that have an answer, with it; stripped, as the Chat model's own method does."""
    return [
        replace(each, response=answers[each.id].strip())
        for each in dialogues(root, task)
        if each.id in answers
    ]


def samples(task: str, root: Path) -> Iterator[Sample]:
    """Questions with their pictures; what the judge is told stays behind."""
    for each in dialogues(root, task):
        fields = {
            f"image_{number}" if number > 1 else "image": path
            for number, path in enumerate(each.images, 1)
        }
        groups = {"category": each.category, "task_name": each.task_name}
        yield Sample(each.id, {**fields, "question": each.question}, groups=groups)


def make(task: str, root: Path) -> None:
    """Write pictures and index, where the table is there and they are not, or are of another."""
    table = root / f"{TABLES[task]}.tsv"
    if not table.is_file():
        return
    try:
        paths = {path for each in dialogues(root, task) for path in each.images}
        current = all((root / path).is_file() for path in paths)
    except DataError:
        current = False
    if not current:
        write_index(table, root, f"{TABLES[task]}.jsonl")


def score(prediction: str, reference: Any) -> float:
    """Given by the judge; see touchstone/score.py."""
    raise DataError("touchstone_score: a judge gives it: qwen-vl-eval judge RUN")


def submission(task: str, root: Path, answers: Mapping[str, str], model: Mapping[str, Any]) -> str:
    """The published columns without the pictures, and the responses."""
    return write_answers(answered(root, task, answers)).decode()


def make_task(name: str, size: int | None, got: Download | ByHand, by_name: bool) -> Task:
    """A language's task: they differ in their tables alone."""
    table = f"{TABLES[name]}.tsv"
    origin = f"'qwen-vl-eval data prepare {name}', which makes it of {table}"
    index = Source(f"{TABLES[name]}.jsonl", origin=origin)
    return Task(
        name=name,
        size=size,
        layouts=(Layout((index,), partial(samples, name)),),
        prompt=PROMPT,
        decode=DECODE,
        metrics={"touchstone_score": score},
        chat=PROMPT,
        expect=Expect(distinct={"task_name": TASK_NAMES} if size else {}),
        steps=(got, Build("TouchStone's pictures and index", partial(make, name))),
        submission=Submission(
            server="another judge; ours is 'qwen-vl-eval judge RUN'",
            file=f"{name}.tsv",
            build=partial(submission, name),
            schema=str,
            alone=False,
        ),
        dialogue=True,
        judged=True,
        by_name=by_name,
        later_steps=(SCRIPT,),
    )


TASKS = (
    make_task("touchstone_en", 908, Download(URL, "touchstone/touchstone_20230831.tsv"), False),
    make_task(
        "touchstone_cn",
        None,
        ByHand(
            "touchstone/touchstone_cn.tsv, in the format of the English table: never published",
            SITE,
        ),
        True,
    ),
)
