"""Who judges, and how: options, a configuration file, the environment."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.config import find_config
from eval.errors import UsageError
from eval.storage.reading import read_toml
from touchstone.judge import MODEL, OPENAI, PARAMETERS, Judge, Price, with_parameters
from touchstone.judging import CONCURRENCY

KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"  # in the environment
TIMEOUT_S = 60.0
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class JudgeConfig(BaseModel):
    """A judge's configuration file; see configs/judge/gpt-4.toml."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    base_url: str | None = None
    parameters: dict[str, Any] | None = None
    price: tuple[Amount, Amount] | None = Field(default=None, strict=False)
    concurrency: int | None = Field(default=None, ge=1, le=1000)
    timeout_s: float | None = Field(default=None, gt=0, le=86400)
    budget: float | None = Field(default=None, ge=0)


@dataclass(frozen=True, slots=True)
class How:
    """How answers are judged.

    ledger        default: beside the run's folder
    budget        USD, all that these judgements have cost before included
    yes           ask nobody whether the estimate may be spent
    as_published  count scores outside 1 to 10
    beside        USD of the budget that the run's other tasks have cost
    """

    judge: Judge
    key: str | None = field(repr=False)
    prompt: Path | None = None
    ledger: Path | None = None
    budget: float | None = None
    concurrency: int = CONCURRENCY
    timeout_s: float = TIMEOUT_S
    anchors: bool = True
    batch: bool = False
    yes: bool = False
    dry_run: bool = False
    retry_failed: bool = False
    allow_partial: bool = False
    as_published: bool = False
    beside: float = 0.0

    @property
    def left(self) -> float | None:
        """The budget of one task."""
        return None if self.budget is None else self.budget - self.beside


def read_judge(
    config: Path | None,
    model: str | None,
    base_url: str | None,
    price: str | None,
    parameters: Mapping[str, Any],
) -> tuple[Judge, JudgeConfig]:
    """Who judges: options first, then the configuration, then the environment."""
    told = _read_config(find_config(config, "judge")) if config else JudgeConfig()
    base = PARAMETERS if told.parameters is None else told.parameters
    found = Judge.priced(
        model or told.model or MODEL,
        base_url or told.base_url or os.environ.get(ADDRESS) or OPENAI,
        with_parameters(base, parameters),
    )
    pair = _parse_price(price) if price else told.price
    if pair is not None:
        found = Judge(found.model, found.base_url, found.parameters, Price(*pair))
    return found, told


def parse_parameters(given: Iterable[str]) -> dict[str, Any]:
    """Parameters of a request from NAME=VALUE; a value that is no JSON is a text."""
    found: dict[str, Any] = {}
    for each in given:
        name, mark, text = each.partition("=")
        if not mark or not name.strip():
            raise UsageError(f"--parameter {each!r:.80}: write NAME=VALUE, such as temperature=0")
        try:
            found[name.strip()] = orjson.loads(text)
        except orjson.JSONDecodeError:
            found[name.strip()] = text
    return found


def _read_config(path: Path) -> JudgeConfig:
    try:
        return JudgeConfig(**read_toml(path, UsageError))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: key {key!r}: {first['msg']}") from None


def _parse_price(text: str) -> tuple[float, float]:
    try:
        asked, replied = (float(part) for part in text.split("/"))
        Price(asked, replied)
    except (ValueError, UsageError):
        raise UsageError(
            f"--price {text!r:.80}: write IN/OUT, USD for a million tokens, such as 30/60"
        ) from None
    return asked, replied
