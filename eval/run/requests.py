"""Requests of a run: each sample rendered for the model, and what identifies the request.

A request's identity covers its prompt, its decoding and the bytes of its images, so that an answer
is used again only for the very same request.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import orjson

from eval.api import Decode, Generate, Nucleus, Rank, Request
from eval.data import Examples
from eval.data.declare import Sample, Task
from eval.protocols.qwen_vl import IMAGE, PUBLISHED, is_dialogue, prompt
from eval.run.spec import Spec, read_samples
from eval.storage.digests import Digests

READERS = 8  # threads that read images for their digests
AT_ONCE = 256  # requests that are looked at together


@dataclass(frozen=True, slots=True)
class Identified:
    """A request and its identity.

    of     sixteen hexadecimal digits of the sha256 of prompt, decoding and the bytes of the images,
           whatever these are called
    group  requests with the same group are answered together: the digest of the first image (the
           path where it cannot be read), empty without one; or the name of a batch
    """

    request: Request
    of: str
    group: str

    @property
    def sample_id(self) -> str:
        """The id of the request's sample, within its task."""
        return self.request.id.partition("/")[2]


def render_request(
    task: Task,
    sample: Sample,
    protocol: str = PUBLISHED,
    examples: Sequence[Sample] = (),
    *,
    decode: Generate | None = None,
) -> Request:
    """The request for one sample; the reference stays behind.

    examples  of the training split, put before the question with their answers
    decode    another way to decode than the task's own

    Raises UsageError for a protocol that does not fit the task, DataError for a field that holds an
    image tag.
    """
    request_id = f"{task.name}/{sample.id}"
    how: Decode = Rank(sample.options)
    if decode or isinstance(task.decode, Generate):
        how = decode or task.decode  # type: ignore[assignment]  # not the class Rank
    if isinstance(how, Nucleus):
        how = how.drawn(request_id)
    dialogue = is_dialogue(task, protocol)
    if dialogue and isinstance(how, Rank):  # a reply does not begin with a space
        how = Rank(tuple(option.strip() for option in how.options))
    return Request(request_id, prompt(task, sample, protocol, examples), how, chat=dialogue)


def requests(task: Task, data: Path, spec: Spec) -> Iterator[tuple[Sample, Request]]:
    """Each sample of a task with its request, in the official order."""
    decode = spec.decode(task)
    if not spec.few_shot:
        for sample in read_samples(task, data, spec):
            yield sample, render_request(task, sample, spec.protocol, decode=decode)
        return
    examples = Examples(task, data, leaking=spec.leaking)
    for sample in read_samples(task, data, spec):
        shown = examples.draw(sample.id, spec.few_shot, spec.seed)
        yield sample, render_request(task, sample, spec.protocol, shown, decode=decode)


def identified_requests(
    task: Task, data: Path, spec: Spec, digests: Digests
) -> Iterator[Identified]:
    """Every request of a task with its identity, in the official order."""
    every = (request for _, request in requests(task, data, spec))
    with ThreadPoolExecutor(READERS, "digest") as readers:
        while some := list(islice(every, AT_ONCE)):
            paths = [IMAGE.findall(request.prompt) for request in some]
            new = list(dict.fromkeys(path for each in paths for path in each))
            read = readers.map(partial(_image, data=data, digests=digests), new)
            digest = dict(zip(new, read, strict=True))
            for request, each in zip(some, paths, strict=True):
                images = [digest[path] for path in each]
                yield Identified(request, _identity(request, images), images[0] if images else "")


def _identity(request: Request, images: list[str]) -> str:
    """See Identified."""
    text = IMAGE.sub("<img></img>", request.prompt)
    content = orjson.dumps([text, repr(request.decode), request.chat, images])
    return hashlib.sha256(content).hexdigest()[:16]


def _image(path: str, data: Path, digests: Digests) -> str:
    """An image's digest, or where it cannot be read its path."""
    try:
        return digests.of(path, data / path)
    except (OSError, ValueError):
        return f"unreadable: {path}"
