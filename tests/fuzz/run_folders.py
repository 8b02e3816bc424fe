"""A finished run whose files are damaged, edited or no files, and the commands that read it.

READS says which command must read which file, as EVALUATION.md describes it. A command that needs
none of a damaged file may refuse it or do as with the clean run. A run agrees with itself: what was
changed after it was scored is named, and the gate ends with 12.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.annotations import LINE, WHOLE, figures
from fuzz.cases import (
    INVALID,
    Area,
    Box,
    Came,
    Case,
    Expect,
    Make,
    Step,
    as_nobody,
    invalid,
    refused,
    same_output,
    step,
    works,
)
from fuzz.damage import BROKEN, SAME

SCORED = ("okvqa_val", "refcoco_val", "scienceqa_test_img", "gqa_testdev", "chartqa_test_human")
SERVER, JUDGED = "docvqa_test", "touchstone_en"
GATE = ("compare", "run", "other", "--gate")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "report": ("report", "run"),
    "json": ("report", "run", "--format", "json"),
    "html": ("report", "run", "--format", "html", "--by"),
    "gate": GATE,
    "candidate": ("compare", "other", "run", "--gate"),
    "browse": ("browse", "run", "--out", "pages"),
    "leaderboard": ("leaderboard", "run", "--out", "site"),
    "plot": ("plot", "run", "--out", "plots"),
    "score": ("score", "run"),
    "submit": ("submit", SERVER, "run", "--file", "sent.json"),
    "judge": ("judge", "run", "--dry-run", "--judge", "rules", "--allow-partial", "--no-anchors",
              "--base-url", "http://127.0.0.1:9/v1"),
}  # fmt: skip
OFTEN = ("report", "gate", "candidate", "browse", "score", "leaderboard", "submit", "judge", "json")
GATES = ("gate", "candidate")
TABLES = ("report", "json", "html", *GATES, "leaderboard", "plot")
WRITES: Mapping[str, tuple[str, ...]] = {
    "browse": ("pages", "pages/*"),
    "leaderboard": ("site", "site/*"),
    "plot": ("plots", "plots/*"),
    "score": ("run/*/scores.jsonl", "run/*/summary.json", "run/.work", "run/.work/*"),
    "submit": ("sent.json", "run/.work", "run/.work/*"),
    "judge": ("run/.work", "run/.work/*", ".judge-ledger.jsonl.lock"),
}
MANIFEST = "manifest.json"
FILES = ("summary.json", "predictions.jsonl", "scores.jsonl")


def reads(command: str, name: str) -> bool:
    """Whether a command cannot do its work without a file of a run."""
    task, _, file = name.rpartition("/")
    if file == MANIFEST:
        return True
    if file == "summary.json":
        return command in TABLES
    if file == "predictions.jsonl":
        if command in ("score", "browse"):
            return True
        return (command, task) in (("submit", SERVER), ("judge", JUDGED))
    if file == "scores.jsonl":
        return command in GATES and task in SCORED
    return False


def ready(box: Box, command: str) -> Path:
    """A copy of the run, and what the command needs beside it."""
    if command in GATES:
        box.copy("other", "other")
    return box.copy("run", "run")


def acted(command: str, *expect: Expect, **more: Any) -> Step:
    return step(COMMANDS[command], *expect, writes=WRITES.get(command, ()), **more)


def as_clean(box: Box, command: str) -> Expect:
    """The clean run's exit code and output."""
    place = box.control(command)
    if command == "score":
        expected = sorted(map(figures, (place / "stdout").read_text().splitlines()))

        def check(came: Came) -> str:
            found = sorted(map(figures, came.stdout.splitlines()))
            return "" if found == expected else "other scores than of the clean run"

        return works(check)
    if command in ("browse", "leaderboard", "plot"):
        return works()
    return works(same_output(place))


def damaged(box: Box, command: str, name: str, kind: str) -> tuple[Expect, ...]:
    """What may come of a command on a run with a damaged file."""
    file = name.rpartition("/")[2]
    if command == "score" and file in ("summary.json", "scores.jsonl"):
        return (as_clean(box, command),)  # it writes them anew
    culprit = [refused((file, name))]
    if command in GATES:
        culprit.append(invalid())
    if file in ("predictions.jsonl", "scores.jsonl") and not _of_server(name):
        if command in TABLES:  # its digest is another, whatever it holds
            return tuple(culprit)
        if kind == SAME and command in ("score", "judge"):
            return (as_clean(box, command),)
    if kind == BROKEN and reads(command, name):
        return tuple(culprit)
    return (
        (*culprit, works()) if kind != SAME else (*_lenient(culprit, file), as_clean(box, command))
    )


def _lenient(culprit: Sequence[Expect], file: str) -> Sequence[Expect]:
    """A manifest that says the same is read; other files have digests."""
    return () if file in (MANIFEST, "summary.json") else culprit


def _of_server(name: str) -> bool:
    return name.startswith((SERVER, JUDGED))


def choose(box: Box, rng: Random) -> tuple[str, str]:
    """A command and a file of the run."""
    command = rng.choice(OFTEN) if rng.random() < 0.92 else rng.choice(["plot", "html"])
    file = rng.choice([MANIFEST, *FILES, *FILES, "losses.jsonl", "server.json", "judgements.jsonl",
                       "journal-0.jsonl"])  # fmt: skip
    if file == MANIFEST:
        return command, file
    task = {"losses.jsonl": "scienceqa_test_img", "server.json": rng.choice([SERVER, JUDGED]),
            "judgements.jsonl": JUDGED}.get(file)  # fmt: skip
    if task is None:
        task = {"submit": SERVER, "judge": JUDGED}.get(command) or rng.choice(SCORED)
        if rng.random() < 0.15:
            task = rng.choice([*SCORED, SERVER, JUDGED])
    return command, f"{task}/{file}"


def bytes_of_a_file(box: Box, rng: Random) -> Case:
    command, name = choose(box, rng)
    path = ready(box, command) / name
    content = path.read_bytes()
    if name.endswith(".jsonl"):
        what, changed, kind = damage_lines(content, rng)
    else:
        what, changed, kind = rng.choice(damage.TO_JSON)(content, rng)
    path.write_bytes(changed)
    expect = damaged(box, command, name, kind)
    return Case(f"{name}: {what}; {command}", (acted(command, *expect),))


def damage_lines(content: bytes, rng: Random) -> damage.Damaged:
    if rng.random() < 0.25:
        return rng.choice((*WHOLE, damage.truncated, damage.empty))(content, rng)
    rows = content.splitlines()
    number = rng.randrange(len(rows))
    what, changed, kind = rng.choice(LINE)(rows[number], rng)
    rows[number] = changed
    return f"line {number + 1}: {what}", b"\n".join(rows) + b"\n", kind


NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {  # T stands for a task
    MANIFEST: (
        ("model",), ("tasks",), ("tasks", "T"), ("tasks", "T", "sources"), ("tasks", "T", "faults"),
        ("tasks", "T", "decode"), ("tasks", "T", "prompt"), ("tasks", "T", "protocol"), ("data",),
    ),
    "summary.json": (
        ("metrics",), ("samples",), ("faults",), ("signature",), ("task",), ("complete",),
        ("intervals",), ("failed",),
    ),
    "server.json": (("metrics",),),
}  # fmt: skip
WRONG_TYPES: tuple[Any, ...] = (None, 5, 1.5, True, "text", [], {}, [[]], 10**30, {"a": {"b": 1}})


def wrong_type(box: Box, rng: Random) -> Case:
    """A value of another type in a file that is read back."""
    command = rng.choice(OFTEN)
    file = rng.choice([MANIFEST, MANIFEST, "summary.json", "summary.json", "server.json"])
    task = rng.choice(SCORED)
    if file == "server.json":
        task = rng.choice([SERVER, JUDGED])
    name = file if file == MANIFEST else f"{task}/{file}"
    path = ready(box, command) / name
    told = json.loads(path.read_text("utf-8"))
    needed = [tuple(task if key == "T" else key for key in path_) for path_ in NEEDED[file]]
    place = rng.choice(needed if rng.random() < 0.6 else list(damage.places(told)))
    old = damage.at(told, place)
    new = rng.choice([each for each in WRONG_TYPES if _other_type(each, old)])
    what = f"is {new!r}"
    if rng.random() < 0.15:
        what, changed = "is gone", damage.without(told, place)
    else:
        changed = damage.put(told, place, new)
    path.write_text(json.dumps(changed), "utf-8")
    culprit = [refused(file)]
    if command in GATES:
        culprit.append(invalid())
    if command == "score" and file == "summary.json":
        culprit = [as_clean(box, command)]
    elif not (place in needed[:3] and file == MANIFEST and what not in ("is gone", "is None")):
        # where it is not needed, or null in place of nothing, it may be passed over
        culprit += [works(), Expect((10, 11), ())] if command in GATES else [works()]
    return Case(
        f"{name}: {'.'.join(map(str, place))} {what}; {command}", (acted(command, *culprit),)
    )


def _other_type(new: Any, old: Any) -> bool:
    numbers = (int, float)
    if isinstance(old, numbers) and isinstance(new, numbers) and not isinstance(new, bool):
        return False
    return type(new) is not type(old)


def wrong_line(box: Box, rng: Random) -> Case:
    """A line of predictions or scores whose fields are of other types."""
    command = rng.choice(["score", "browse", "gate", "submit", "judge"])
    task = {"submit": SERVER, "judge": JUDGED}.get(command) or rng.choice(SCORED)
    file = "scores.jsonl" if command == "gate" else "predictions.jsonl"
    path = ready(box, command) / task / file
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    number = rng.randrange(len(rows))
    field = rng.choice(["id", "text"]) if file == "predictions.jsonl" else rng.choice(list(rows[0]))
    if rng.random() < 0.2:
        what, rows[number] = f"no {field}", damage.without(rows[number], (field,))
    else:
        new = rng.choice([v for v in WRONG_TYPES if _other_type(v, rows[number][field])])
        what, rows[number] = f"{field} is {new!r}", rows[number] | {field: new}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    expect = [refused(file)]
    if command == "gate":
        expect.append(invalid())
    return Case(f"{task}/{file}: line {number + 1}: {what}; {command}", (acted(command, *expect),))


def edited(box: Box, rng: Random) -> Case:
    """Somebody changed a figure after the run was scored: named, and invalid for the gate."""
    command = rng.choice(["gate", "candidate", "gate", "candidate", "report", "json", "leaderboard",
                          "browse", "submit"])  # fmt: skip
    task = SERVER if command == "submit" else rng.choice(SCORED)
    run = ready(box, command)
    turn = rng.choice(["scores", "predictions", "summary"])
    if command == "submit" or (turn == "summary" and command not in GATES):
        turn = "predictions"
    _edit(run / task, turn)
    file = {"summary": "summary.json"}.get(turn, f"{turn}.jsonl")
    expect = invalid(file) if command in GATES else refused(file)
    return Case(f"{task}/{file} was edited; {command}", (acted(command, expect),))


def _edit(folder: Path, turn: str) -> None:
    if turn == "summary":
        path = folder / "summary.json"
        told = json.loads(path.read_text("utf-8"))
        name = next(iter(told["metrics"]))
        told["metrics"][name] = 0.5 if told["metrics"][name] != 0.5 else 0.25
        path.write_text(json.dumps(told, indent=2), "utf-8")
        return
    path = folder / f"{turn}.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        if turn == "predictions":
            row["text"] = " otherwise"
        else:
            metrics = [key for key in row if key not in ("id", "image")]
            row |= {key: 1.0 - row[key] for key in metrics}
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), "utf-8")


def scored_again(box: Box, rng: Random) -> Case:
    """`score` makes an edited folder agree with itself again."""
    task = rng.choice([task for task in SCORED if task != "scienceqa_test_img"])
    run = ready(box, "gate")
    _edit(run / task, rng.choice(["scores", "predictions", "summary"]))
    agreed = Expect((0, 10, 11))
    steps = (acted("gate", invalid()), acted("score", works()), acted("gate", agreed))
    return Case(f"{task} was edited, and scored again", steps)


def old_folder(box: Box, rng: Random) -> Case:
    """A folder without digests, as earlier versions made it: unverified, and taken by the gate."""
    command = rng.choice(["report", "gate", "candidate", "leaderboard"])
    run = ready(box, command)
    for task in (*SCORED, SERVER, JUDGED):
        path = run / task / "summary.json"
        told = json.loads(path.read_text("utf-8"))
        kept = {key: value for key, value in told.items() if key != "digests"}
        path.write_text(json.dumps(kept), "utf-8")
    says = ("unverified",) if command != "leaderboard" else ()
    expect = [works(None, *says)]
    return Case(f"no digests; {command}", (acted(command, *expect),))


def no_file(box: Box, rng: Random) -> Case:
    """Something lies in a file's place that is none."""
    command, name = choose(box, rng)
    file = name.rpartition("/")[2]
    what = damage.replace(ready(box, command) / name, rng)
    culprit = [refused((file, name, name.rpartition("/")[0]))]
    if command in GATES:
        culprit.append(invalid())
    if command == "score" and file in ("summary.json", "scores.jsonl"):
        culprit.append(as_clean(box, command))
    elif not reads(command, name) or "nothing" in what or "nowhere" in what:
        culprit += [works(), Expect((3,), (name.rpartition("/")[0],))]
    return Case(f"{name}: {what}; {command}", (acted(command, *culprit),))


def unreadable(box: Box, rng: Random) -> Case:
    """A file or folder that another user may not read, or not write."""
    uid = as_nobody()
    command, name = choose(box, rng)
    path = ready(box, command) / name
    (box.ground / "readable").mkdir(exist_ok=True)
    if rng.random() < 0.4 and command in ("score", "submit", "report", "browse"):
        for each in (*path.parents[: 2 if "/" in name else 1], path):
            each.chmod(0o555)
        box.here.chmod(0o755)
        expect = [refused(), works()]
        return Case(f"the run may not be written; {command}", (acted(command, *expect, uid=uid),))
    target = rng.choice([path, path.parent, box.here / "run"])
    target.chmod(0)
    expect = [refused((target.name, path.name)), *([invalid()] if command in GATES else [])]
    if target == path and not reads(command, name):
        expect += [works()]
    if target not in (path, box.here / "run") and not reads(command, name):
        expect += [works()]
    return Case(f"{target.name} may not be read; {command}", (acted(command, *expect, uid=uid),))


def leftovers(box: Box, rng: Random) -> Case:
    """What killed processes left beside files is removed by the next that writes there."""
    run = ready(box, "score")
    task = rng.choice(SCORED)
    names = [f".{name}.4194399" for name in ("scores.jsonl", "summary.json")]
    for name in names:
        (run / task / name).write_bytes(b"half a li")

    def removed() -> str:
        left = [name for name in names if (run / task / name).exists()]
        return f"{left} are still there" if left else ""

    one = step(COMMANDS["score"], as_clean(box, "score"), writes=(*WRITES["score"], "run/*/.*"))
    return Case("temporary files of a killed process", (one,), removed)


def foreign(box: Box, rng: Random) -> Case:
    """Folders of pages with somebody's own file in them are left as they are."""
    command, out = rng.choice([("browse", "pages"), ("leaderboard", "site"), ("plot", "plots")])
    ready(box, command)
    name = rng.choice(["notes.txt", "intervals.svg", "index.html", "data/a.json", "Übersicht.pdf"])
    box.write(f"{out}/{name}", "mine")
    kinds = rng.choice(["file", "folder", "link"])
    if kinds == "folder":
        box.write(f"{out}/mine/deep/x", "mine")
    if kinds == "link":
        (box.here / out / "link").symlink_to(box.here / "run")
    one = step(COMMANDS[command], refused(out))
    return Case(f"{out} holds {name}; {command}", (one,))


def tasks(box: Box, rng: Random) -> Case:
    """A task's folder is gone, is a file, or is there under a name that no task has."""
    command = rng.choice(OFTEN)
    task = rng.choice(SCORED)
    run = ready(box, command)
    turn = rng.choice(["gone", "a file", "unknown", "twice"])
    if turn == "unknown":
        told = json.loads((run / MANIFEST).read_text("utf-8"))
        told["tasks"] = {"no_such_task": told["tasks"].pop(task), **told["tasks"]}
        (run / MANIFEST).write_text(json.dumps(told), "utf-8")
        (run / task).rename(run / "no_such_task")
    elif turn == "twice":
        (run / "copy").mkdir()
    else:
        for file in (run / task).iterdir():
            file.unlink()
        (run / task).rmdir()
        if turn == "a file":
            (run / task).write_text("x")
    expect = [refused(), works()]
    if command in GATES:
        expect = [refused(), Expect((INVALID,))]
    if turn == "twice":
        expect = [as_clean(box, command)]
    return Case(f"{task}: {turn}; {command}", (acted(command, *expect),))


def _control(command: str) -> Make:
    def make(box: Box, _: Random) -> Case:
        ready(box, command)
        return Case(f"nothing was done to it; {command}", (acted(command, works()),))

    return make


Maker = Callable[[Box, Random], Case]
MAKERS: tuple[Maker, ...] = (
    bytes_of_a_file, wrong_type, edited, bytes_of_a_file, no_file, wrong_line, wrong_type,
    bytes_of_a_file, unreadable, edited, bytes_of_a_file, wrong_type, wrong_line, scored_again,
    no_file, foreign, leftovers, tasks, old_folder, bytes_of_a_file,
)  # fmt: skip
AREA = Area("run_folders", MAKERS, count=860, controls={name: _control(name) for name in COMMANDS})
