"""A checkpoint from a model hub: one set of weights, and no code."""

import os
from pathlib import Path

from eval.errors import CheckpointError
from eval.runtime import recognise, weights

PATIENCE_S = 30.0


def download_checkpoint(hub_id: str, revision: str | None, choice: str | None) -> tuple[Path, str]:
    """The cached folder of a repository at a commit, and the set of weights in it.

    Of several sets the first in transformers' order is fetched, `.safetensors` before `.bin`,
    unless `choice` names another. Small files come first: what is recognised as something else
    than a checkpoint is refused before its weights are fetched.
    """
    folder = _fetch(hub_id, revision, ["*.json", recognise.VOCABULARY])
    names = _listed(hub_id, folder)
    recognise.refuse_folder(folder, names, choice)
    first = next((name for name in weights.SETS if name in names), None)
    chosen = weights.choose_weights(folder, names, choice or first)
    files = [chosen]
    if chosen.endswith(weights.INDEX):
        files = sorted(set(weights.read_index(folder / chosen).values()))
    return _fetch(hub_id, folder.name, files), chosen


def _fetch(hub_id: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except _failures() as error:
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            f"{hub_id}: no folder of that name here, and the model hub could not provide it at "
            f"revision {revision or 'main'} ({lines[0] if lines else type(error).__name__}). "
            "Where there is no network, download the repository elsewhere and give its folder"
        ) from None


def _listed(hub_id: str, folder: Path) -> frozenset[str]:
    """Names of a repository's files at a commit; without network, of those in the cache."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(hub_id, revision=folder.name, timeout=PATIENCE_S)
        return frozenset(each.rfilename for each in info.siblings or ())
    except _failures():
        return frozenset(os.listdir(folder))  # noqa: PTH208  # names alone


def _failures() -> tuple[type[Exception], ...]:
    """What a hub raises that is out of reach, refuses, or answers as none does."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # not declared as public
        HfHubHTTPError,
        HTTPError,
    )

    return OSError, ValueError, LookupError, TypeError, HfHubHTTPError, HTTPError
