"""What judging needs of a judged task: a package offers it under the entry point eval.judges.

    [project.entry-points."eval.judges"]
    touchstone = "touchstone.judging"       the benchmark's name, and a module or object

The benchmark is what stands before the first underscore of a task's name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eval import plugins
from eval.client.account import ReplyRules
from eval.client.entries import JudgedLine
from eval.client.server import Messages, Server
from eval.data.declare import Task


class Item(Protocol):
    """An answer, and what a judge is shown of its question; eval reads only the following.

    id        the sample's
    response  the answer; an anchor's never changes
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def response(self) -> str | None: ...  # noqa: D102


class Prompt(Protocol):
    """How a judge is asked; eval reads only the following.

    digest     SHA-256 of all its texts, hexadecimal
    published  whether it is the benchmark's own
    """

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def published(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Judgements:
    """All that a judge replied about some answers.

    lines         item's id -> the last reply in each round, in their order
    drift         see eval.judging.drift; None where no anchors were judged
    as_published  scores outside the scale count
    """

    server: Server
    prompt: Any
    items: Sequence[Any]
    lines: Mapping[str, Sequence[JudgedLine]]
    drift: Mapping[str, Any] | None
    as_published: bool


class JudgedTask(ReplyRules, Protocol):
    """A judged task. Its items and prompts are its own; see Item and Prompt.

    REPLY_FORM  how a reply must begin, in the words of a message
    ROUNDS      numbers of the rounds in which every item is judged
    ANCHORS     items whose judgements show whether a judge has changed
    """

    REPLY_FORM: str
    ROUNDS: Sequence[int]
    ANCHORS: Sequence[Any]

    def scale_fault(self, text: str) -> str:
        """Why the scores of a reply do not count; empty where they do, or where there are none."""

    def assessed(self, scores: Sequence[float], number: int) -> float:
        """The score of the answer that is judged, of a reply's scores in a round."""

    def read_prompt(self, file: Path | None, data: Path) -> tuple[Any, str]:
        """How the judge is asked, and what a user should know of that, empty for nothing.

        file  given by the user; None for what lies with the benchmark's data, or a default

        Raises DataError for a file without a prompt.
        """

    def messages(self, item: Any, number: int, prompt: Any) -> Messages:
        """What the judge is shown of an item in a round."""

    def answered(self, task: str, data: Path, answers: Mapping[str, str]) -> Sequence[Any]:
        """The items whose ids have an answer, in the task's order, as the judge is shown them."""

    def read_answers(self, file: Path, task: str, data: Path | None) -> Sequence[Any]:
        """The items of a user's table of answers.

        data  the benchmark's data, with which it must agree

        Raises DataError for what is no such table, or does not agree.
        """

    def write_data(self, items: Sequence[Any], file: Path, task: str, root: Path) -> None:
        """Write data of a table's own items below a folder, such that the task can read them."""

    def result(self, judgements: Judgements) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows for TaskScores.write_judgements, and scores for its write_server.

        The scores' field `judge` has those of eval.run.files.Judge, and for whoever shows it:
        failed, the number of failed rounds; published, the score with those outside the scale, or
        None; interval, its ends or None, and no_interval, why; intervals and no_intervals, the same
        by group and value.
        """

    def remarks(self, judged: Mapping[str, Any]) -> Iterator[str]:
        """What a user should know of the scores, a line each, of a summary's field `judge`."""


def judged_task(task: Task) -> JudgedTask:
    """What a task's benchmark offers for judging. Raises UsageError, PluginError."""
    found: JudgedTask = plugins.judge(task.name.partition("_")[0], JudgedTask)
    return found


def judgement_failure(
    line: JudgedLine, scale_fault: Callable[[str], str], *, as_published: bool
) -> str:
    """Why a reply does not count, empty where it does.

    scale_fault  see JudgedTask; with as_published scores outside the scale count
    """
    if line.fault or as_published or line.reply is None:
        return line.fault
    return scale_fault(line.reply)
