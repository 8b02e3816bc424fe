"""What a benchmark declares: tasks, layouts of their data, and steps that fetch the data."""

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

    path    below the data root, with forward slashes; a pattern with `*` and `**` where names are
            not known in full, such as the parts of a mirror's parquet
    sha256  pinned digest, or None if unknown; a mismatch stops the run
    origin  where to get it; errors about a missing file say so
    """

    path: str
    sha256: str | None = None
    origin: str = ""

    def files(self, root: Path) -> list[Path]:
        """The files that match, sorted by name.

        Links to folders are followed and hidden files skipped: see eval.storage.tree.
        """
        return files_like(root, self.path)


@dataclass(frozen=True, slots=True)
class Sample:
    """One question.

    id         unique within the task, and the same in every layout of the data
    fields     values for the prompt; `image`, and `image_2`, `image_3` ... for several, are paths
               below the data root; a training example also has its `answer` here
    reference  what the metrics compare with; None where only a server knows it
    options    for ranked tasks, the texts that are appended to the prompt: (" A", " B")
    groups     what scores are broken down by: {"answer_type": "yes/no"}
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
    """One form of a benchmark's data on disk; every layout gives the same samples.

    read      data root -> samples, in the order of the official file
    name      official, converted (by the model's authors) or mirror (parquet of a hub)
    pictures  for files that hold the pictures themselves: data root -> (path as samples name it,
              the picture's bytes); `data prepare` writes them
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
    """Facts of the official split that `data verify` checks.

    images    distinct images
    answers   total of human answers or captions
    groups    group -> value -> samples; checked where the layout has the group
    distinct  group -> number of its values; checked likewise
    each      sample -> what is wrong with it, or None
    within    data root -> ids of a larger split that must include all of this split's, or None
              where that split is not there
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
    """A zip or tar.gz that `data prepare` fetches, keeping some members.

    url   http(s); its ending gives the format
    into  folder below the data root
    keep  pattern of the end of a member's path, in whole parts; it is also the path in `into`:
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

    what   files or folders, and where they belong in the data root
    where  address of the page
    """

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images fetched one by one.

    urls  data root -> (URL, path below the root), read from files already fetched
    """

    urls: Callable[[Path], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A dataset of the model hub, in parquet, that can stand in for the official files.

    repos  ids of datasets, tried in turn
    files  pattern of the files to fetch from the repository
    into   folder below the data root; files keep their paths in it
    """

    repos: tuple[str, ...]
    files: str
    into: str


@dataclass(frozen=True, slots=True)
class Build:
    """Files made from others: data root -> None; does nothing if they exist."""

    what: str
    make: Callable[[Path], None]


Step = Download | Archive | ByHand | Pictures | Mirror | Build


@dataclass(frozen=True, slots=True)
class Submission:
    """The file that a benchmark's server takes.

    server  its name and address
    file    the file's name: .json, .zip or .tsv
    build   (data root, sample id -> text, the manifest's entry on the model) -> content of a .json,
            member -> content of a .zip, or text of a .tsv; there is a text for every sample, in
            order
    schema  type that pydantic checks the result against, strictly, before it is written
    alone   whether only the server knows the references
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
    mean      whether the score is a mean of per-sample values, as CIDEr's is. F1 is not: its
              function repeats the score for each sample, so it has no interval and two runs cannot
              be compared
    """

    function: Callable[[Sequence[str], Sequence[Any]], list[float]]
    caveat: Callable[[Sequence[Any], Sequence[float]], str] | None = None
    mean: bool = False


Metric = Callable[[str, Any], float] | Corpus


def image_paths(fields: Mapping[str, str]) -> tuple[str, ...]:
    """The paths in `image`, `image_2`, `image_3` ..., up to the first that is missing."""
    paths: list[str] = []
    while path := fields.get(f"image_{len(paths) + 1}" if paths else "image"):
        paths.append(path)
    return tuple(paths)


def is_mean(metric: Metric) -> bool:
    """Whether the score is a mean of per-sample values."""
    return metric.mean if isinstance(metric, Corpus) else True


def value_range(metric: Metric) -> tuple[float, float]:
    """Lowest and highest value of a metric."""
    return (0.0, 10.0) if isinstance(metric, Corpus) else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark's split: data, prompt, decoding, metrics.

    name        <benchmark>_<split>
    size        samples in the official split, or None if unknown
    layouts     tried in turn; the first whose sources all exist is read
    prompt      Qwen-VL's notation with {field} places, for protocol "published"; {pictures} becomes
                a line for each picture of the sample
    decode      a Generate for all samples, or Rank, which ranks each sample's own options
    metrics     name -> metric; tables show the first. A summary is the mean over samples; values
                lie in [0, 1] (CIDEr: [0, 10])
    readable    text -> whether it can be parsed; texts that cannot score 0 and are counted
    chat        the user's turn in protocol "chatml"; empty if the task has none
    expect      what the official split holds beyond its size
    steps       how to get the data
    train       layouts of the training split, from which few-shot examples are drawn
    train_steps how to get what few-shot examples need beyond `steps`, such as large pictures
    submission  the file for the benchmark's server, if one scores this split
    drops_last  whether the published loader drops each process's last incomplete batch
    renumbered  whether published result files number the samples in their own way; such files are
                read in the samples' order
    dialogue    whether it is published as a ChatML dialogue; `prompt` is then the user's turn
    judged      whether another model scores the answers; the samples have no reference
    by_name     whether only its own name selects it, not its benchmark's name or "all": its data
                are not published
    later_steps what only scoring needs
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

        Raises DataError, naming each layout's missing files and their origin.
        """
        return _complete(self.layouts, root, f"{self.name}: its data are not below {root}.")

    def has_data(self, root: Path) -> bool:
        """Whether one of the layouts is complete below `root`."""
        return any(layout.complete(root) for layout in self.layouts)

    def examples(self, root: Path) -> Layout:
        """The first complete layout of the training split.

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
