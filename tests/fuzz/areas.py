"""All areas of the campaign."""

from fuzz import (
    annotations,
    archives,
    arguments,
    checkpoints,
    judge_replies,
    parquet,
    paths,
    pickles,
    pictures,
    result_files,
    resumed,
    run_folders,
    surroundings,
)
from fuzz.cases import Area

AREAS: tuple[Area, ...] = (
    annotations.AREA,
    result_files.AREA,
    pickles.AREA,
    parquet.AREA,
    archives.AREA,
    judge_replies.AREA,
    run_folders.AREA,
    arguments.AREA,
    paths.AREA,
    surroundings.AREA,
    pictures.AREA,
    checkpoints.AREA,
    resumed.AREA,
)
