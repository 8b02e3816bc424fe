"""Who judges: a configuration file, and what stands before it or behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.client.server import MODEL, OPENAI, PARAMETERS, Price, Server, with_parameters
from eval.config import find_config
from eval.errors import UsageError
from eval.storage.reading import read_toml

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


def read_config(name: Path | None) -> JudgeConfig:
    """A file, or one of configs/judge by its name; None for an empty one. Raises UsageError."""
    return _read(find_config(name, "judge")) if name else JudgeConfig()


def choose_server(
    config: JudgeConfig,
    *,
    model: str | None = None,
    base_url: str | None = None,
    default_url: str | None = None,
    price: Price | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Server:
    """The server that judges: what is given first, then the configuration.

    default_url  where neither has an address
    parameters   changes to those of the configuration; see with_parameters

    Raises UsageError; see Server.
    """
    base = PARAMETERS if config.parameters is None else config.parameters
    found = Server.priced(
        model or config.model or MODEL,
        base_url or config.base_url or default_url or OPENAI,
        with_parameters(base, parameters or {}),
    )
    if price is None and config.price is not None:
        price = Price(*config.price)
    return found if price is None else Server(found.model, found.base_url, found.parameters, price)


def _read(path: Path) -> JudgeConfig:
    try:
        return JudgeConfig(**read_toml(path, UsageError))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: key {key!r}: {first['msg']}") from None
