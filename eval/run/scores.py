"""A task's scores in a run: per sample, summarized, and those that a server or a judge gave."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eval.errors import RunError
from eval.run.answers import TaskAnswers, refusals
from eval.run.files import (
    JUDGEMENTS,
    SCORES,
    SERVER,
    SOURCES,
    SUBMISSION,
    SUMMARY,
    Summary,
    check_agreement,
    read_scores,
    read_server,
    read_summary,
    source_digests,
)
from eval.storage.reading import is_there
from eval.storage.writing import PRETTY, write_file, write_rows, writing


@dataclass(frozen=True, slots=True)
class TaskScores:
    """The scores in a task's folder.

    answers  that they belong to
    """

    folder: Path
    answers: TaskAnswers

    @property
    def complete(self) -> bool:
        """Whether the task has its summary."""
        return is_there(self.folder / SUMMARY, RunError)

    def summary(self) -> Summary:
        """The summary. Raises RunError where it does not agree with the task's files."""
        summary = read_summary(self.folder)
        check_agreement(self.folder, summary)
        return summary

    def verify(self) -> str:
        """Compare the summary, if there is one, with the files that it was made from.

        Why that is impossible, or "". Raises RunError where they do not agree.
        """
        return check_agreement(self.folder, read_summary(self.folder)) if self.complete else ""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each sample's values, in dataset order; see eval.scoring.score."""
        return read_scores(self.folder)

    def write(
        self, rows: Iterable[Mapping[str, Any]], summary: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Write scores.jsonl row by row, then summary.json, which says that both are complete.

        summary  called when the last row was taken; what it gives is returned

        Where a row cannot be had, the earlier scores and their summary stay.
        """
        sources = source_digests(self.folder, tuple(n for n in SOURCES if n != SCORES))
        with writing(self.folder / SCORES) as file:
            for row in rows:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            # before the new scores take their place
            (self.folder / SUMMARY).unlink(missing_ok=True)
        content = {**summary(), "digests": sources | source_digests(self.folder, (SCORES,))}
        write_file(self.folder / SUMMARY, orjson.dumps(content, option=PRETTY))
        return content

    def submission_file(self, name: str) -> Path:
        """Where the submission file lies; its folder exists."""
        folder = self.folder / SUBMISSION
        with refusals(folder):
            folder.mkdir(exist_ok=True)
        return folder / name

    def write_server(self, scores: Mapping[str, Any]) -> None:
        """Record what a server gave, or a judge, for the predictions that are there now.

        scores  {"server": its name, "metrics": name -> score}, and where they are known "samples":
                id -> its values, "by": group -> value -> scores, "judge": all else about
                it, "doubts": what keeps the scores from being what the card has
        """
        content = {**scores, "predictions": self.answers.digest()}
        write_file(self.folder / SERVER, orjson.dumps(content, option=PRETTY))

    def write_judgements(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Record what a judge said of each answer."""
        write_rows(self.folder / JUDGEMENTS, rows)

    def server(self) -> dict[str, Any] | None:
        """What a server or a judge gave, or None; None too where the predictions have changed."""
        file = self.folder / SERVER
        if not is_there(file, RunError):
            return None
        scores = read_server(file)
        of = scores.get("predictions")  # not in files of earlier versions
        return scores if of in (None, self.answers.digest()) else None
