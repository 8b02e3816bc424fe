"""ChartQA: questions about charts of statistics sites that take reading and arithmetic.

Paper     Masry et al. 2022, https://arxiv.org/abs/2203.10244
Split     test: 1,250 questions written by people on 625 charts, 1,250 augmented (generated from
          the charts' texts) on 987
Protocol  zero-shot, greedy, 1 to 100 new tokens; Qwen-VL eval_mm/evaluate_vqa.py,
          "chartqa_test_human" and "chartqa_test_augmented"
Metric    relaxed accuracy: numbers within 5 %, other answers equal in lower case; by the rule
          behind the published figures, which takes the 5 % of the model's answer, and beside it by
          the rule as the paper means it, 5 % of the true one
Departs   nowhere known
Known     the card does not say which half its figure is of; its authors were asked and no answer
          is known. The mean of both halves is the field's convention, and as both have 1,250
          questions it equals the figure over all 2,500. On the day of the release the published
          script pointed at the human half of val; that was changed three days later
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eval import ByHand, Expect, Generate, Layout, Mirror, Sample, Source, Task
from eval.data import Record, converted_source, hub_source, read_jsonl, read_list, read_pictures
from eval.data.mirrors import digest_name, distinct
from eval.data.samples import Folders
from eval.metrics.relaxed import relaxed_accuracy

DRIVE = "https://drive.google.com/file/d/1Lm_w6zeET1Hyl_9ks6w5nEsgpoyPHalV/view"
FOLDER = "chartqa/ChartQA Dataset"  # as the archive calls it
HUB, OTHER_HUB = "lmms-lab/ChartQA", "HuggingFaceM4/ChartQA"
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
CHART = r"[^/\\:\x00-\x1f\x7f]{1,200}\.png"
HALVES = ("human", "augmented")  # in the order of the other mirror's human_or_machine: 0, 1


def official(split: str, half: str, root: Path) -> Iterator[Sample]:
    """Records without an id, so their number in the half's file is taken, from 0."""
    for number, row in enumerate(read_list(root / FOLDER / split / f"{split}_{half}.json")):
        image = f"{FOLDER}/{split}/png/{row.text('imgname', CHART)}"
        yield sample(split, number, image, row.text("query"), row.text("label"))


def converted(split: str, path: str, root: Path) -> Iterator[Sample]:
    """Numbered likewise, whatever question_id says. Charts lie where the archive has them."""
    folders = Folders()
    for number, row in enumerate(read_jsonl(root / path)):
        image = folders.check(row, f"{FOLDER}/{split}/png/{row.tail('image', CHART)}")
        yield sample(split, number, image, row.text("question"), row.text("answer"))


def mirrored(half: str, source: Source, root: Path) -> Iterator[Sample]:
    """Both halves of test, told apart by `type`."""
    rows = read_pictures(root, source, ("type", "question", "answer"))
    of_half = (pair for pair in rows if pair[0].text("type", "(human|augmented)_test")[:-5] == half)
    for number, (row, picture) in enumerate(of_half):
        yield sample("test", number, name(row, picture), row.text("question"), row.text("answer"))


def mirrored_elsewhere(split: str, half: str, source: Source, root: Path) -> Iterator[Sample]:
    """Both halves, told apart by a number; the answer is a list of one."""
    rows = read_pictures(root, source, ("human_or_machine", "query", "label"))
    of_half = (pair for pair in rows if half_of(pair[0]) == half)
    for number, (row, picture) in enumerate(of_half):
        labels = row.texts("label")
        if len(labels) != 1:
            raise row.error(f"field 'label': one answer expected, {len(labels)} found")
        yield sample(split, number, name(row, picture), row.text("query"), labels[0])


def half_of(row: Record) -> str:
    """The half that a row of the other mirror belongs to."""
    number = row.integer("human_or_machine")
    if number >= len(HALVES):
        raise row.error(f"field 'human_or_machine': 0 or 1 expected, {number} found")
    return HALVES[number]


def name(row: Record, picture: bytes) -> str:
    """Where a mirror's chart lies: mirrors do not tell the official name."""
    return digest_name("chartqa/mirror", row, picture)


def mirror_pictures(source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """The charts of both halves, each once."""
    rows = read_pictures(root, source, ())
    return distinct((name(row, picture), picture) for row, picture in rows)


def sample(split: str, number: int, image: str, question: str, label: str) -> Sample:
    """One question."""
    fields = {"image": image, "question": question}
    if split == "train":
        fields["answer"] = label
    return Sample(str(number), fields, reference=label)


def layouts(split: str, half: str) -> tuple[Layout, ...]:
    """All in which one half of a split is found."""
    first = Source(f"{FOLDER}/{split}/{split}_{half}.json", origin=f"the archive at {DRIVE}")
    lines = converted_source(f"chartqa/{split}_{half}.jsonl")
    known = [
        Layout((first,), partial(official, split, half)),
        Layout((lines,), partial(converted, split, lines.path), name="converted"),
    ]
    tables = hub_source(f"chartqa/mirror/**/{split}-*.parquet", HUB)
    other = hub_source(f"chartqa/mirror_m4/**/{split}-*.parquet", OTHER_HUB)
    if split == "test":  # the first mirror has no other
        known.append(mirror_layout(tables, partial(mirrored, half, tables)))
    known.append(mirror_layout(other, partial(mirrored_elsewhere, split, half, other)))
    return tuple(known)


def mirror_layout(source: Source, read: "partial[Iterator[Sample]]") -> Layout:
    """Tables that hold the charts themselves."""
    return Layout((source,), read, name="mirror", pictures=partial(mirror_pictures, source))


STEPS = (
    ByHand("the archive, unzipped: chartqa/ChartQA Dataset/test/", DRIVE),
    Mirror(("lmms-lab-encoder/ChartQA", HUB), "**/test-*.parquet", "chartqa/mirror"),
)
IMAGES = {"human": 625, "augmented": 987}
TASKS = tuple(
    Task(
        name=f"chartqa_test_{half}",
        size=1250,
        layouts=layouts("test", half),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=100, min_new_tokens=1),
        metrics={
            "relaxed_accuracy": relaxed_accuracy,
            "relaxed_accuracy_official": partial(relaxed_accuracy, variant="official"),
        },
        chat=CHAT,
        expect=Expect(images=images),
        steps=STEPS,
        train=layouts("train", half),
    )
    for half, images in IMAGES.items()
)
