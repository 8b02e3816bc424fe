"""What a benchmark declares: its tasks, the layouts of their data, and how the data are got."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.api import Generate, Rank
from eval.errors import DataError, UsageError
from eval.storage.tree import files_like


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a task reads.

    path    below the data root, with forward slashes; `*` and `**` for files whose names are not
            known in full, such as the parts of a mirror's parquet
    sha256  pinned digest, or None while it is unknown; a mismatch stops the run
    origin  what provides it, said to a user who lacks it
    """

    path: str
    sha256: str | None = None
    origin: str = ""

    def files(self, root: Path) -> list[Path]:
        """The file, or in order of their names all that the pattern matches; empty without any.

        Links to folders are followed, hidden files passed over: see eval.storage.tree.
        """
        return files_like(root, self.path)


@dataclass(frozen=True, slots=True)
class Sample:
    """One question.

    id         unique within the task, and the same in every layout of the data
    fields     what the prompt is filled with; `image` is a path below the data root, and so are
               `image_2`, `image_3` and so on where there are several; an example of a training
               split has its `answer` here too
    reference  what the metrics compare with; None where only a server knows it
    options    for ranked tasks, the texts that are appended to the prompt: (" A", " B")
    groups     what figures are broken down by: {"answer_type": "yes/no"}
    """

    id: str
    fields: Mapping[str, str]
    reference: Any = None
    options: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of the sample's pictures, below the data root."""
        return image_paths(self.fields)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a benchmark's data lie on disk; every layout gives the same samples.

    read      data root -> samples, in the order of the official file
    name      official, converted (by the model's authors) or mirror (parquet of a hub)
    pictures  where the files hold the pictures themselves: data root -> (path below the root as
              samples name it, the picture's bytes), which `data prepare` writes there
    """

    sources: tuple[Source, ...]
    read: Callable[[Path], Iterator[Sample]]
    name: str = "official"
    pictures: Callable[[Path], Iterator[tuple[str, bytes]]] | None = None

    def complete(self, root: Path) -> bool:
        """Whether all of its files lie below `root`."""
        return all(source.files(root) for source in self.sources)


@dataclass(frozen=True, slots=True)
class Expect:
    """What tells the official split from data that only look like it; `data verify` checks it.

    images    distinct images
    answers   human answers or captions in all
    groups    group -> value -> samples; looked at where the layout tells the group
    distinct  group -> how many values it has, likewise
    each      sample -> what is wrong with it, or None
    within    data root -> ids among which all of the samples' must be, or None where they are not
              known there: a larger split, of which this one is a part
    """

    images: int | None = None
    answers: int | None = None
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    distinct: Mapping[str, int] = field(default_factory=dict)
    each: Callable[[Sample], str | None] | None = None
    within: Callable[[Path], Collection[str] | None] | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A file that `data prepare` fetches as it is.

    path  below the data root
    """

    url: str
    path: str


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip or tar.gz that `data prepare` fetches, and of which it keeps some members.

    url   http(s); its ending tells the format
    into  folder below the data root
    keep  pattern of the end of a member's path, whole parts, which also is its place in `into`:
          r"val2014/COCO_val2014_[0-9]{12}\\.jpg" of any folder above
    gb    size of the archive, roughly
    """

    url: str
    into: str
    keep: str
    gb: float = 0


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a person must fetch: a form, an account, a drive.

    what   files or folders, as a user would say it, and where in the data root they belong
    where  page to go to
    """

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images fetched one by one.

    urls  data root -> (URL, path below the root), from files that were fetched before
    """

    urls: Callable[[Path], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A dataset of the model hub, in parquet, that can stand in for the official files.

    repos  ids of datasets, tried in turn
    files  pattern of the files wanted in the repository
    into   folder below the data root, where they keep their paths
    """

    repos: tuple[str, ...]
    files: str
    into: str


@dataclass(frozen=True, slots=True)
class Build:
    """Files made from others: data root -> None; does nothing where they are there already."""

    what: str
    make: Callable[[Path], None]


Step = Download | Archive | ByHand | Pictures | Mirror | Build


@dataclass(frozen=True, slots=True)
class Submission:
    """The file that a benchmark's server takes.

    server  its name and address
    file    the file's name: .json, .zip or .tsv
    build   (data root, sample id -> text, the manifest's entry on the model) -> what a .json file
            holds, for a .zip member -> what it holds, for a .tsv its text; the texts are those of
            all samples, in their order
    schema  a type that pydantic checks the result against, strictly, before it is written
    alone   whether only the server knows the references, so that it alone can score the split
    """

    server: str
    file: str
    build: Callable[[Path, Mapping[str, str], Mapping[str, Any]], Any]
    schema: Any
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Corpus:
    """A metric whose value for one sample depends on all of them, such as CIDEr or F1.

    function  (predictions, references) -> one value per sample
    caveat    (references, values) -> why the values do not depend on the predictions, or ""
    mean      whether the score is a mean of values that belong to single samples, as CIDEr's is. F1
              is not: its function repeats the score for each sample. Without such values there is
              no interval, and two runs cannot be compared
    """

    function: Callable[[Sequence[str], Sequence[Any]], list[float]]
    caveat: Callable[[Sequence[Any], Sequence[float]], str] | None = None
    mean: bool = False


Metric = Callable[[str, Any], float] | Corpus


def image_paths(fields: Mapping[str, str]) -> tuple[str, ...]:
    """The paths in `image`, `image_2`, `image_3` and so on, up to the first that there is not."""
    paths: list[str] = []
    while path := fields.get(f"image_{len(paths) + 1}" if paths else "image"):
        paths.append(path)
    return tuple(paths)


def is_mean(metric: Metric) -> bool:
    """Whether the score is a mean of values that belong to single samples."""
    return metric.mean if isinstance(metric, Corpus) else True


def value_range(metric: Metric) -> tuple[float, float]:
    """Lowest and highest value of a metric."""
    return (0.0, 10.0) if isinstance(metric, Corpus) else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark's split: data, prompt, decoding, metrics.

    name        <benchmark>_<split>
    size        samples in the official split, or None where it is not known
    layouts     tried in turn; the first whose sources all exist is read
    prompt      Qwen-VL's notation with {field} places: protocol "published"; {pictures} stands for
                a line with each of a sample's pictures
    decode      a Generate for all samples, or Rank: the options are then each sample's own
    metrics     name -> metric; the first is the one that tables show; a summary is the mean over
                samples, and a metric's values stay in [0, 1] (CIDEr: [0, 10])
    readable    text -> whether it can be parsed at all; the others score 0 and are counted
    chat        the user's turn in protocol "chatml"; empty where the task has none
    expect      what the official split holds beyond its size
    steps       how the data are got
    train       layouts of the training split, whose samples few-shot examples are drawn from
    train_steps how few-shot examples are got, as far as `steps` does not get them: large pictures
    submission  what the benchmark's server takes, where one scores this split
    drops_last  whether the published loader drops each process's last incomplete batch
    renumbered  whether published result files have numbers of their own for the samples, so that
                they are read in the samples' order, which is theirs too
    dialogue    whether it is published as a ChatML dialogue: `prompt` is the user's turn then
    judged      whether another model scores the answers: the samples have no reference
    by_name     whether it is asked by its own name alone, neither by its benchmark's nor by "all":
                its data are published nowhere
    later_steps what only scoring needs, got beside the data
    """

    name: str
    size: int | None
    layouts: tuple[Layout, ...]
    prompt: str
    decode: Generate | type[Rank]
    metrics: Mapping[str, Metric]
    readable: Callable[[str], bool] | None = None
    chat: str = ""
    expect: Expect = field(default_factory=Expect)
    steps: tuple[Step, ...] = ()
    train: tuple[Layout, ...] = ()
    train_steps: tuple[Step, ...] = ()
    submission: Submission | None = None
    drops_last: bool = False
    renumbered: bool = False
    dialogue: bool = False
    judged: bool = False
    by_name: bool = False
    later_steps: tuple[Step, ...] = ()

    @property
    def benchmark(self) -> str:
        """The part of the name before the split."""
        return self.name.partition("_")[0]

    def layout(self, root: Path) -> Layout:
        """The first layout whose files all lie below `root`.

        Raises DataError, naming each layout's missing files and what provides them.
        """
        return _complete(self.layouts, root, f"{self.name}: its data are not below {root}.")

    def has_data(self, root: Path) -> bool:
        """Whether one of the layouts is complete below `root`."""
        return any(layout.complete(root) for layout in self.layouts)

    def examples(self, root: Path) -> Layout:
        """The first complete layout of the training split, as `layout` finds it.

        Raises UsageError where the benchmark has none.
        """
        if not self.train:
            raise UsageError(f"{self.name}: has no training split to draw few-shot examples from")
        missing = f"{self.name}: its training split, for few-shot examples, is not below {root}."
        return _complete(self.train, root, missing)


def _complete(layouts: tuple[Layout, ...], root: Path, problem: str) -> Layout:
    lines = [f"{problem} Any one of these would do:"]
    for number, layout in enumerate(layouts, 1):
        if layout.complete(root):
            return layout
        for source in layout.sources:
            present = bool(source.files(root))
            origin = f" (from {source.origin})" if source.origin and not present else ""
            state = "found" if present else "missing"
            lines.append(f"  {number}. {state}: {root / source.path}{origin}")
    raise DataError("\n".join(lines))
