"""GRIT, referring expressions: the box around what a phrase names, partly in distorted pictures.

Paper     Gupta et al. 2022, https://arxiv.org/abs/2204.13653
Split     ablation and test; how many samples each holds was not published in what could be read
Protocol  zero-shot, greedy, 10 to 28 new tokens after "<box>", as for RefCOCO
Metric    on the server: the first box is right where its IoU is above 0.5, exactly 0.5 is wrong;
          the board's figure, acc.any.agg.ref, is the plain mean of the accuracies on pictures of
          the training sources and of new ones, without distorted pictures
Departs   nowhere known; no script of the model's authors is public for this benchmark
Known     the prompt is inferred: it is the one of RefCOCO. The truth is private, so no figure can
          be computed here. The rivals' figures beside the card's are those usually published for
          ablation, so the column is read as ablation. Whether the boards still take files was not
          checked. The submission gives each box in whole pixels, as the server asks
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from eval import Archive, ByHand, Generate, Layout, Sample, Source, Submission, Task
from eval.data import Record, read_list, safe_path
from eval.data.coco import coco_archive
from eval.data.sizes import picture_size
from eval.metrics.box import has_box, parse_box
from eval.metrics.grit import TWIN, box_accuracy_strict
from eval.storage.reading import is_folder

SITE = "https://github.com/allenai/grit_official"
BUCKET = "https://ai2-prior-grit.s3.us-west-2.amazonaws.com/public"
REFCLEF = "https://bvisionweb1.cs.unc.edu/licheng/referit/data/images/saiapr_tc-12.zip"
PROMPT = "<img>{image}</img><ref>{expression}</ref><box>"
CHAT = "Picture 1: <img>{image}</img>\n<ref>{expression}</ref><box>"
IMAGES = "grit/GRIT/images"
SHARED = ("coco/train2014", "coco/test2015")  # folders that other benchmarks use too
ID = r"[^\x00-\x1f\x7f]{1,200}"
PARAMETERS = 9600  # millions, of Qwen-VL
MOST_PX = 2**31  # a side beyond it is no box


def official(path: str, root: Path) -> Iterator[Sample]:
    """A phrase each. COCO's images lie with other benchmarks', or where GRIT has them.

    Raises DataError for a distorted sample whose undistorted twin is not there.
    """
    rows = list(read_list(root / path))
    ids = {row.text("example_id", ID) for row in rows}
    shared = [each for each in SHARED if is_folder(root / each)]
    shared += [each for each in SHARED if not is_folder(root / IMAGES / each)]
    for row in rows:
        row.text("task_name", "refexp")
        number = row.text("example_id")
        if number.endswith(TWIN) and number.removesuffix(TWIN) not in ids:
            raise row.error(
                f"field 'example_id': the twin of {number!r} without {TWIN!r} expected in the "
                "file, none found. Is the file cut short?"
            )
        fields = {"image": image_path(row, shared), "expression": row.text("task_query")}
        yield Sample(number, fields)


def image_path(row: Record, shared: list[str]) -> str:
    """Where a sample's image lies: below the data root if its folder is shared, else GRIT's."""
    image = safe_path(row.text("image_id"), f"{row.where}: field 'image_id'")
    return image if image.rpartition("/")[0] in shared else f"{IMAGES}/{image}"


class Parameters(TypedDict):
    """What the server wants to know of a model."""

    params_in_millions: int


class Answer(TypedDict):
    """One record of the server's file: boxes are x1 y1 x2 y2 in whole pixels."""

    example_id: str
    confidence: float
    bboxes: list[list[int]]


Ablation = TypedDict(
    "Ablation", {"ablation/params.json": Parameters, "ablation/refexp.json": list[Answer]}
)
Test = TypedDict("Test", {"test/params.json": Parameters, "test/refexp.json": list[Answer]})


def submission(
    subset: str, root: Path, answers: Mapping[str, str], model: Mapping[str, Any]
) -> dict[str, Any]:
    """A box for every sample of the subset, none where the text holds none; members of the zip.

    Raises DataError for a picture without a size.
    """
    (task,) = (task for task in TASKS if task.name == f"grit_refexp_{subset}")
    rows = [
        {
            "example_id": each.id,
            "confidence": 1.0,  # required; accuracy does not look at it
            "bboxes": boxes(answers[each.id], root / each.fields["image"]),
        }
        for each in task.layout(root).read(root)
    ]
    parameters = model.get("parameters")
    millions = max(1, round(parameters / 1e6)) if isinstance(parameters, int) else PARAMETERS
    return {
        f"{subset}/params.json": {"params_in_millions": millions},
        f"{subset}/refexp.json": rows,
    }


def boxes(text: str, image: Path) -> list[list[int]]:
    """The first box in a text, rounded to pixels of the image; none where none can be read."""
    if not has_box(text):
        return []
    sides = parse_box(text, *picture_size(image))
    if not all(math.isfinite(side) and abs(side) <= MOST_PX for side in sides):
        return []
    return [[round(side) for side in sides]]


def layouts(subset: str) -> tuple[Layout, ...]:
    """The one layout: GRIT's own."""
    path = f"grit/GRIT/samples/{subset}/refexp.json"
    source = Source(path, origin=f"{BUCKET}/grit_data.zip of {SITE}")
    return (Layout((source,), partial(official, path)),)


STEPS = (
    Archive(f"{BUCKET}/grit_data.zip", "grit", r"GRIT/samples/(?:ablation|test)/refexp\.json"),
    coco_archive("train2014"),
    coco_archive("test2015"),
    Archive(REFCLEF, IMAGES, r"saiapr_tc-12/[0-9]{2}/images/[0-9]{1,9}\.jpg"),
    Archive(f"{BUCKET}/distortions.tar.gz", "grit/GRIT", r"distortions/.+"),
    ByHand(
        f"the distorted pictures, which the site's generator makes of the others with the maps in "
        f"grit/GRIT/distortions: below {IMAGES}/, named as in the samples; so too the pictures of "
        "RefCLEF, where its server is down",
        SITE,
    ),
)
TASKS = tuple(
    Task(
        name=f"grit_refexp_{subset}",
        size=None,
        layouts=layouts(subset),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=28, min_new_tokens=10),
        metrics={"accuracy": box_accuracy_strict},
        readable=has_box,
        chat=CHAT,
        steps=STEPS,
        submission=Submission(
            server=f"AI2 leaderboard, GRIT {subset}, {SITE}",
            file=f"grit_refexp_{subset}.zip",
            build=partial(submission, subset),
            schema=schema,
        ),
    )
    for subset, schema in (("ablation", Ablation), ("test", Test))
)
