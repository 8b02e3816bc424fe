"""A back end without a model that a stranger's package offers: quick, exact, and easily lost.

An answer is a digest of the prompt and of the image's bytes. The checkpoint's name says how it is:

    slow       it takes a while over each question
    social     it begins when another process has been asked something, too
    drowsy     it falls asleep over the second question that it is asked
    wordy      it answers at length
    poisoned   a question about poison ends its process
    gruff      it cannot be opened, for an error of its own
    sterile    its process ends when it is asked anything
    crowded    an answer tells how many were asked together
"""

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval import Prediction, Request

PAUSE_S = 0.015
WORDS = 60


class Fragile:
    def __init__(self, how: set[str], image_root: Path) -> None:
        self.how = how
        self.image_root = image_root

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        asked = list(requests) if "crowded" in self.how else requests
        for number, request in enumerate(asked):
            if "social" in self.how and not number:
                meet(Path(os.environ["FRAGILE_MEETING"]))
            if "drowsy" in self.how and number:
                time.sleep(600)
            if "sterile" in self.how or ("poisoned" in self.how and "poison" in request.prompt):
                os.kill(os.getpid(), signal.SIGKILL)
            if "slow" in self.how:
                time.sleep(PAUSE_S)
            told = hashlib.sha256(request.prompt.encode())
            for path in re.findall(r"<img>(.*?)</img>", request.prompt):
                told.update((self.image_root / path).read_bytes())
            words = [told.hexdigest()[:32]] * (WORDS if "wordy" in self.how else 1)
            if "crowded" in self.how:
                words.append(str(len(asked)))
            yield Prediction(request.id, " ".join(words), (len(words), 7))

    def describe(self) -> Mapping[str, Any]:
        return {"name": "fragile", "digest": "of nothing"}


def meet(place: Path) -> None:
    (place / str(os.getpid())).touch()
    while len(list(place.iterdir())) < 2:
        time.sleep(0.02)


def open_backend(checkpoint: str, *, image_root: Path, **_: Any) -> Fragile:
    how = set(checkpoint.split("-"))
    if "gruff" in how:
        raise ValueError("not today")
    return Fragile(how, image_root)


def identify(checkpoint: str, revision: str | None) -> str:
    return "of nothing"
