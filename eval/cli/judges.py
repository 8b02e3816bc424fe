"""Who judges, and how: options, a configuration file, the environment."""

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.errors import UsageError
from touchstone.judge import MODEL, OPENAI, Judge, Price
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
    timeout_s: float | None = Field(default=None, gt=0)
    budget: float | None = Field(default=None, ge=0)


@dataclass(frozen=True, slots=True)
class How:
    """How answers are judged.

    ledger   default: beside the run's folder
    budget   USD, all that these judgements have cost before included
    yes      ask nobody whether the estimate may be spent
    beside   USD of the budget that the run's other tasks have cost
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
    beside: float = 0.0

    @property
    def left(self) -> float | None:
        """The budget of one task."""
        return None if self.budget is None else self.budget - self.beside


def read_judge(
    config: Path | None, model: str | None, base_url: str | None, price: str | None
) -> tuple[Judge, JudgeConfig]:
    """Who judges: options first, then the configuration, then the environment."""
    told = _read_config(config) if config else JudgeConfig()
    found = Judge.priced(
        model or told.model or MODEL,
        base_url or told.base_url or os.environ.get(ADDRESS) or OPENAI,
        told.parameters,
    )
    pair = _parse_price(price) if price else told.price
    if pair is not None:
        found = Judge(found.model, found.base_url, found.parameters, Price(*pair))
    return found, told


def _read_config(path: Path) -> JudgeConfig:
    try:
        return JudgeConfig(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: a judge's configuration expected, {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: key {key!r}: {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not TOML: {error}") from None


def _parse_price(text: str) -> tuple[float, float]:
    try:
        asked, replied = (float(part) for part in text.split("/"))
        if not (0 <= asked < float("inf") and 0 <= replied < float("inf")):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--price {text!r}: IN/OUT expected, USD for a million tokens, such as 30/60"
        ) from None
    return asked, replied
