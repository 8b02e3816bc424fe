"""TouchStone's replies and figures, equal to what was recorded from its own script."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone.reply import fault_of, parse_reply
from touchstone.score import Judged, Round, published_means


@pytest.fixture(scope="module")
def cases(golden):
    return json.loads((golden / "metrics" / "touchstone_cases.json").read_text(encoding="utf-8"))


def rounds(record):
    """Replies name the first answer's score first; in the second round that is the assessed one."""
    (a, b, one), (c, d, two) = record["round1"], record["round2"]
    return Round(a, b, one == "error"), Round(d, c, two == "error")


def test_every_recorded_reply(cases):
    """The same scores, or refused as there, with a reason."""
    for case in cases["reply_cases"]:
        expected = None if case["status"] == "error" else tuple(map(float, case["parsed"]))
        found = parse_reply(case["reply"])
        assert str(expected) == str(found), case  # as texts: nan equals nan
        assert bool(fault_of(case["reply"])) == (found is None)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("", "an empty reply"),
        ("8, 7", "'8,' is not a number"),
        ("8  7", "the first line is not two numbers with one space between: '8  7'"),
        ("Both are good.\n8 7", "one space between: 'Both are good.'"),
    ],
)
def test_a_refused_reply_says_why(reply, said):
    """What was expected and what was found."""
    assert said in fault_of(reply)


@given(st.text())
def test_a_reply_is_parsed_or_refused_with_a_reason(reply):
    """Whatever a server sends."""
    assert (parse_reply(reply) is None) == bool(fault_of(reply))


@pytest.mark.parametrize("part", ["aggregate", "all_errors", "pipeline"])
def test_every_recorded_figure(cases, part):
    """Over all rounds with scores, and by category."""
    told = cases[part]
    reference, assessed = (
        told.get("models") or {"reference": "gpt4-ha", "assessed": "mymodel"}
    ).values()
    judged = [Judged(record["category"], rounds(record)) for record in told["records"]]
    overall, by_category = published_means(judged)
    expected = told["expected"]

    def same(means, figures):
        for name, value in ((reference, means.reference), (assessed, means.assessed)):
            if value is None:
                assert name not in figures
            else:
                assert figures[name] == pytest.approx(value, abs=1e-9)

    same(overall, expected["overall"])
    for name, means in by_category.items():
        same(means, expected["by_category"].get(name, {}))
    assert expected["by_category"].keys() <= by_category.keys()
