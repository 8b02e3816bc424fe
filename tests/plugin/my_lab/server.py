"""A back end that says the last word of the prompt again."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from eval import Prediction, Request


class Parrot:
    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    @classmethod
    def open(cls, checkpoint: str, **settings: Any) -> "Parrot":
        return cls(checkpoint)

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        for request in requests:
            yield Prediction(request.id, " " + request.prompt.split()[-1])

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.checkpoint}
