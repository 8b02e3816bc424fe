"""Few-shot examples: which samples of the training split come before a question.

The examples of a question depend on the seed, the task and the sample's id alone, so they are the
same for any order, number of workers, or resume. The published scripts draw from a global random
state that depends on all three.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.data.declare import Sample, Task
from eval.data.samples import unique
from eval.errors import DataError, UsageError

RULE = "sha256(seed/task/sample/n) modulo their number; prompt, space, answer"  # see draw


class Examples:
    """The samples that may come before a task's questions.

    leaking  draw from the captions of the split itself, as the published caption script does
    """

    def __init__(self, task: Task, root: Path, *, leaking: bool = False) -> None:
        self.task = task.name
        if leaking:
            self.samples = list(_captions(task.layout(root).read(root)))
        else:
            self.samples = list(unique(task.examples(root).read(root), f"{task.name}, training"))
        for sample in self.samples:
            if not sample.fields.get("answer"):
                raise DataError(f"{task.name}: training sample {sample.id}: an answer expected")

    def draw(self, sample_id: str, count: int, seed: int) -> list[Sample]:
        """`count` different examples for one question. Raises UsageError if there are fewer.

        Candidate n is number sha256("seed/task/sample/n") modulo the number of samples; repeated
        ones are skipped.
        """
        if count > len(self.samples):
            raise UsageError(
                f"{self.task}: {count} few-shot examples asked for, the training split has "
                f"{len(self.samples)}"
            )
        chosen: dict[int, None] = {}
        number = 0
        while len(chosen) < count:
            text = f"{seed}/{self.task}/{sample_id}/{number}"
            digest = hashlib.sha256(text.encode()).digest()
            chosen[int.from_bytes(digest, "big") % len(self.samples)] = None
            number += 1
        return [self.samples[index] for index in chosen]


def _captions(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Each caption of each image as an example."""
    for sample in samples:
        captions: Sequence[str] = sample.reference or ()
        for number, caption in enumerate(captions):
            yield Sample(f"{sample.id}/{number}", {**sample.fields, "answer": caption})
