"""What judging is given: a table, an address, a ledger, and how each can be wrong."""

import json
import os
from pathlib import Path

import pytest
from judge_server import FaultyJudge
from judging import (
    KEY,
    PARTIAL,
    TASK,
    beside,
    dialogue,
    judge,
    judge_few,
    results,
    summary,
    table,
)
from small import command

from eval.client.ledger import Ledger
from touchstone import reply
from touchstone.prompt import OWN
from touchstone.table import ANSWERS

ONE = ("--concurrency", 1)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def target(tmp_path):
    return table(tmp_path / "answers.tsv", 3)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "answers.judged"


# Tables

HEAD = "\t".join(ANSWERS) + "\n"
ROW = "7\ta\tb\tc\td\te\tf\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a table expected, nothing found"),
        (HEAD, "at least one row expected, none found"),
        (HEAD.replace("\tresponse", "") + "7\ta\tb\tc\td\te\n", "response missing among index, q"),
        ((HEAD + ROW).replace("\t", ","), "human_annotation, gpt4_ha_answer, category, task_name"),
        (HEAD + ROW + ROW, "row 2, column 'index': texts that stand once expected, '7' of row 1"),
        (HEAD + ROW.replace("7", ""), "row 1, column 'index': a text expected, an empty cell"),
        (HEAD + ROW + ROW.replace("7\ta", '8\t"a'), "quotes that close, expected; found: EOF ins"),
        (HEAD + ROW.replace("f", "f\tg\th"), "error: "),
        ((HEAD + ROW.replace("f", "é")).encode("latin-1"), "UTF-8 expected, the byte 0xe9 found"),
    ],
)
def test_a_table_that_is_none(tmp_path, content, said):
    """What was expected, and where; nothing is asked or written."""
    target = tmp_path / "answers.tsv"
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    with FaultyJudge() as server:
        done = judge_few(target, server)
        assert (2, 0) == (done.returncode, len(server.requests))
    assert f"{target}: " in done.stderr
    assert said in done.stderr
    assert not (tmp_path / "answers.judged" / TASK).exists()
    assert not beside(target).exists()


def test_rows_that_lack(tmp_path, run):
    """Refused before anything is asked; --allow-partial judges what there is and says so."""
    target = table(tmp_path / "answers.tsv", 2)
    with FaultyJudge() as server:
        done = judge(target, server)
        assert (2, 0) == (done.returncode, len(server.requests))
        assert "samples: 908 expected, 2 found" in done.stderr
        assert [target] == list(tmp_path.iterdir())
        done = judge_few(target, server)
    assert done.returncode == 0
    assert "partial: 2 of 908" in command("report", run, "--format", "md").stdout
    assert (False, 2) == (summary(run)["complete"], summary(run)["samples"])


def test_other_answers_are_another_run(target, run):
    """A run's folder keeps to the table that it was made of."""
    with FaultyJudge() as server:
        assert judge_few(target, server).returncode == 0
        before = results(run)
        table(target, [dialogue(number, "changed") for number in range(3)])
        done = judge_few(target, server)
        assert (2, 6) == (done.returncode, len(server.requests))
        assert before == results(run)
        assert str(run) in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--task", "okvqa"), "one that a judge scores expected"),
        (("--task", "nothing"), "nothing"),
        (("--data", "nowhere"), "nowhere"),
        (("--judge-prompt", "nowhere.json"), "nowhere.json"),
        (("--judge-prompt", "setup.cfg"), "setup.cfg: a judge's prompt in a file .json"),
        (("--config", "nowhere.toml"), "nowhere.toml: no such file"),
    ],
)
def test_arguments_that_are_wrong(target, more, said):
    with FaultyJudge() as server:
        done = judge_few(target, server, *more)
        assert (2, True, 0) == (done.returncode, said in done.stderr, len(server.requests)), (
            done.stderr
        )
        assert 2 == judge_few(target.with_name("none"), server).returncode


# Ledgers


def test_a_torn_last_line(target, run):
    """Left by a crash: what it would have said is asked again, and nothing else."""
    with FaultyJudge() as server:
        assert judge_few(target, server, *ONE).returncode == 0
        expected = results(run)
        whole = beside(target).read_bytes()
        assert b"judged" in whole.splitlines()[-1]
        for cut in (1, 50, len(whole.splitlines()[-1])):
            server.requests.clear()
            beside(target).write_bytes(whole[:-cut])
            assert judge_few(target, server).returncode == 0
            assert 1 == len(server.requests)
            assert expected == results(run)


def test_a_damaged_line(target):
    """It is named, and nothing asked: it might be paid twice."""
    with FaultyJudge() as server:
        assert judge_few(target, server).returncode == 0
        content = beside(target).read_bytes().splitlines(keepends=True)
        content[6] = content[6][:40] + b"\n"
        beside(target).write_bytes(b"".join(content))
        server.requests.clear()
        done = judge_few(target, server)
        assert (2, 0) == (done.returncode, len(server.requests))
    assert f"{beside(target)}, line 7: not a line of a ledger" in done.stderr
    assert b"".join(content) == beside(target).read_bytes()


def test_a_ledger_that_another_process_holds(target):
    with FaultyJudge() as server, Ledger.held(beside(target), reply):
        done = judge_few(target, server)
        assert (2, 0) == (done.returncode, len(server.requests))
    assert f"{beside(target)}: another process judges with this ledger (process " in done.stderr


# Files that are none

BIG = "9" * 400


@pytest.mark.parametrize("option", ["--ledger", "--judge-prompt", "--config"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "too long", "no name", "forbidden"])
def test_a_file_that_is_none(target, option, kind):
    """A pipe is not waited for, nor a device read: a plain error, and nothing is asked."""
    ending = {"--judge-prompt": ".json"}.get(option, "")
    place = target.parent / f"odd{ending}"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "too long":
        place = target.parent / f"{'x' * 5000}{ending}"
    elif kind == "no name":
        place = Path("/") if not ending else Path(f"a/{ending}")
    else:
        place = target / f"below a file{ending}"
    with FaultyJudge() as server:
        done = judge_few(target, server, option, place)
        assert (2, 0) == (done.returncode, len(server.requests)), done.stderr
        if option == "--ledger" and kind in ("pipe", "folder", "device"):
            again = judge_few(target, server, option, place, "--dry-run")
            assert (2, ": a regular file" in again.stderr) == (again.returncode, True)
    assert len(done.stderr) < 1500


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model = 5", "key 'model': "),
        ("model = ['x']", "key 'model': "),
        (f"budget = {BIG}", "key 'budget': "),
        ("price = [1e999, 1]", "key 'price.0': "),
        ("price = [1e300, 1]", "a price lies between 0 and 1e+09"),
        (f"[parameters]\nseed = {BIG}", "JSON cannot hold them"),
        ("timeout_s = 1e9", "key 'timeout_s': "),
        ("timeout_s = nan", "key 'timeout_s': "),
        ("x = " + "[" * 50_000 + "]" * 50_000, "nested more than 50 levels deep"),
        ("a." * 50_000 + "b = 1", "nested more than 50 levels deep"),
        ("model = 'x'".encode("utf-16"), "this is UTF-16; save it as UTF-8"),
        (b"model = '\xff'", "not UTF-8 at byte 9"),
    ],
    ids=range(12),
)
def test_a_configuration_of_odd_content(target, content, said):
    """The file and the key are named."""
    file = target.parent / "judge.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = judge_few(target, "http://127.0.0.1:9/v1", "--config", file)
    assert (2, True) == (done.returncode, said in done.stderr), done.stderr
    assert said.startswith("a price") or "JSON" in said or str(file) in done.stderr


def test_a_byte_order_mark_is_skipped(target):
    """Of a configuration, a prompt and a ledger."""
    mark = b"\xef\xbb\xbf"
    config, prompt = target.parent / "judge.toml", target.parent / "prompt.json"
    config.write_bytes(mark + b"concurrency = 1\n")
    texts = {"system": OWN.system, "template": OWN.template, "instruction": "Grade."}
    prompt.write_bytes(mark + json.dumps(texts).encode())
    more = ("--config", config, "--judge-prompt", prompt)
    with FaultyJudge() as server:
        assert judge_few(target, server, *more).returncode == 0
        beside(target).write_bytes(mark + beside(target).read_bytes())
        done = judge_few(target, server, *more)
        assert (0, 6) == (done.returncode, len(server.requests)), done.stderr


@pytest.mark.parametrize("price", ["1e400/1", "1e300/1e300", "nan/1", "1_0", "1/2/3", "-0.1/0"])
def test_a_price_that_is_none(target, price):
    """It is refused before it can make a cost that no ledger holds."""
    done = judge_few(target, "http://127.0.0.1:9/v1", "--price", price)
    assert (2, True) == (done.returncode, f"--price '{price}': write IN/OUT" in done.stderr)


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://user:passw0rd@127.0.0.1:9/v1",
        "user:passw0rd@127.0.0.1:9/v1",
        "https://user:passw0rd@127.0.0.1:99999/v1",
        "https://passw0rd@127.0.0.1/v1",
        "https://127.0.0.1/v1?key=passw0rd",
        "https://127.0.0.1/v1#passw0rd",
        "ftp://127.0.0.1/v1",
        "127.0.0.1/v1",
        "http://[passw0rd@1/v1",
        "http://127.0.0.1:9/v1?passw0rd=" + "x" * 100_000,
        "https:///v1",
    ],
)
def test_an_address_that_is_none_or_holds_a_password(target, url, monkeypatch):
    """Refused before anything, and a password is not repeated."""
    done = judge_few(target, url, "--dry-run")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    other = command("judge", target, *PARTIAL)
    for each in (done, other):
        assert (2, True) == (each.returncode, "the judge's address: " in each.stderr), each.stderr
        assert "passw0rd" not in each.stdout + each.stderr
    assert [target] == list(target.parent.iterdir())
