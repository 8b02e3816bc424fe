"""Some answers before a judge: every request, each with the key that the ledger knows it by."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from eval.client.ledger import Ledger, Request
from eval.client.server import Messages, Server
from eval.judging.task import JudgedTask


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest(Request):
    """A request for the judgement of an item in one round."""

    task: JudgedTask
    item: Any
    round: int
    prompt: Any

    @property
    def messages(self) -> Messages:
        """What the judge is shown."""
        return self.task.messages(self.item, self.round, self.prompt)


@dataclass(frozen=True, slots=True)
class Occasion:
    """Some answers before a judge: all that is asked, and what it is known by.

    name      the same for the same answers, judge and prompt
    judging   the judge and prompt alone
    items     the answers
    requests  every round of every item
    anchors   every round of every anchor, asked anew on every occasion
    """

    name: str
    judging: str
    task: JudgedTask
    server: Server
    prompt: Any
    items: Sequence[Any]
    requests: tuple[JudgeRequest, ...]
    anchors: tuple[JudgeRequest, ...]

    @classmethod
    def of(
        cls,
        task: JudgedTask,
        name: str,
        items: Sequence[Any],
        server: Server,
        prompt: Any,
        *,
        anchors: bool = False,
    ) -> "Occasion":
        """All that is to be asked about a task's items with their responses."""
        judging = _digest(server.describe(), prompt.digest)
        keyed = [
            (server.key(task.messages(item, number, prompt)), item, number)
            for item in items
            for number in task.ROUNDS
        ]
        occasion = _digest(judging, [key for key, _, _ in keyed])
        about = {"task": name, "prompt": prompt.digest[:16]}
        requests = tuple(
            JudgeRequest(
                key,
                occasion,
                about | {"sample": item.id, "round": number},
                task=task,
                item=item,
                round=number,
                prompt=prompt,
            )
            for key, item, number in keyed
        )
        fixed = tuple(
            JudgeRequest(
                server.key(task.messages(anchor, number, prompt), "anchor", occasion),
                occasion,
                {"anchor": anchor.id, "round": number, "judging": judging},
                task=task,
                item=anchor,
                round=number,
                prompt=prompt,
            )
            for anchor in (task.ANCHORS if anchors else ())
            for number in task.ROUNDS
        )
        return cls(occasion, judging, task, server, prompt, items, requests, fixed)

    @property
    def by_key(self) -> dict[str, JudgeRequest]:
        """Key -> request, the anchors last; of items with one text the last."""
        return {each.key: each for each in (*self.requests, *self.anchors)}

    def pending(self, ledger: Ledger) -> list[JudgeRequest]:
        """What must still be asked: each request once, the anchors last."""
        found: dict[str, JudgeRequest] = {}
        for request in (*self.requests, *self.anchors):
            if not ledger.account.settled(request.key):
                found.setdefault(request.key, request)
        return list(found.values())


def _digest(*parts: Any) -> str:
    content = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]
