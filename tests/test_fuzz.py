"""The campaign of hostile inputs sees what it must see; a small seeded part of it is run.

As a program, `python tests/test_fuzz.py FOLDER`, this file runs a campaign of made-up commands.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz.cases import Area, Case, Expect, refused, step, works

CAMPAIGN = Path(__file__).parent / "fuzz" / "campaign.py"
INPUTS = 26  # of the campaign's cases, all areas in proportion
OK, WRONG, DEFECT, HANG, KILLED = "as expected", "wrong outcome", "exit 1", "hang", "killed"
CASES = (  # arguments, what is expected of them, what the campaign must call it
    (("say", "0"), works(), OK),
    (("say", "2", "bad.json: broken"), refused("bad.json"), OK),
    (("say", "2", "something is wrong"), refused("bad.json"), WRONG),
    (("say", "0"), refused(), WRONG),
    (("say", "2"), refused(), WRONG),
    (("say", "1", "internal error: x"), Expect((0, 1, 2)), DEFECT),
    (("say", "2", "Traceback (most recent call last):"), refused(), DEFECT),
    (("raise",), works(), DEFECT),
    (("sleep",), works(), HANG),
    (("spin",), works(), KILLED),
    (("segfault",), works(), KILLED),
    (("eat",), works(), DEFECT),
    (("leave", "here/other"), works(), WRONG),
    (("leave", "here/out/.summary.json.123"), works(), WRONG),
    (("leave", "tmp/forgotten"), works(), WRONG),
    (("leave", "here/out/summary.json"), works(), OK),
    (("change", "here/input"), works(), WRONG),
)


def command():
    """What stands in for the console script."""
    verb, *rest = sys.argv[1:]
    root = Path.cwd().parent
    if verb == "say":
        print(*rest[1:], file=sys.stderr)
        sys.exit(int(rest[0]))
    elif verb == "raise":
        raise KeyError("x")
    elif verb == "sleep":
        time.sleep(600)
    elif verb == "spin":
        while True:
            pass
    elif verb == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif verb == "eat":
        held = [bytearray(1 << 26) for _ in range(64)]
        print(len(held))
    else:
        (root / rest[0]).parent.mkdir(exist_ok=True)
        (root / rest[0]).write_text("x")


def _maker(number):
    arguments, expect, _ = CASES[number]

    def make(box, _):
        with (box.root.parents[1] / "made").open("a") as made:
            made.write(f"{number}\n")
        box.write("input", "as it was")
        wall_s = 2.0 if arguments == ("sleep",) else 60.0
        one = step(arguments, expect, writes=("out", "out/summary.json"), wall_s=wall_s)
        return Case(f"case {number}", (one,))

    return make


MADE_UP = Area("made_up", tuple(map(_maker, range(len(CASES)))), count=len(CASES))


def run_made_up(work, **more):
    """A campaign of the made-up commands, in a process without threads."""
    done = subprocess.run(
        [sys.executable, __file__, work], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("campaign")


@pytest.fixture(scope="module")
def outcomes(work):
    return run_made_up(work)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_comes_is_called_by_its_name(outcomes, number):
    """Exit code 1, a traceback, a hang, a signal, a stray file and a wrong message are all seen."""
    assert outcomes[f"made_up/{number}"] == CASES[number][2]


def test_finished_cases_are_not_run_again(work, outcomes):
    """A campaign goes on where it was stopped, after a line that was torn; the rest is run."""
    journal = work / "journal.jsonl"
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]) + lines[-2][:40], "utf-8")
    before = (work / "made").read_text().splitlines()
    assert outcomes == run_made_up(work)
    assert len((work / "made").read_text().splitlines()) == len(before) + 2


def test_results_of_other_code_do_not_count(work, outcomes):
    """What a version of the code gave says nothing of another."""
    journal = work / "journal.jsonl"
    lines = journal.read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    other = [json.dumps(row | {"code": "another", "outcome": OK}) for row in rows]
    journal.write_text("".join(f"{line}\n" for line in other), "utf-8")
    assert outcomes == run_made_up(work)


@pytest.mark.slow
def test_a_small_part_of_the_campaign_comes_out_as_expected(tmp_path):
    """No exit code 1, no hang, no outcome but those stated, for a few inputs of every area."""
    options = ["--work", tmp_path, "--inputs", str(INPUTS), "--jobs", "2", "--seed", "1"]
    options += ["--real-every", "100"]
    done = subprocess.run(
        [sys.executable, CAMPAIGN, *options, "--write", tmp_path / "figures.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    figures = (tmp_path / "figures.md").read_text("utf-8")
    assert "python tests/fuzz/campaign.py --seed 1" in figures
    assert "| run_folders |" in figures


if __name__ == "__main__":
    from fuzz import perform
    from fuzz.campaign import Campaign

    perform.CPU_S = 2
    perform.DATA_BYTES = 1 << 29
    campaign = Campaign((MADE_UP,), 0, Path(sys.argv[1]), real_every=0, entry=command)
    print(json.dumps({key: result.outcome for key, result in campaign.run().items()}))
