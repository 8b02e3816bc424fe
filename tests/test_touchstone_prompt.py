"""The judge's prompt: the published words are known when they are found, and stand nowhere here."""

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import DataError
from touchstone.prompt import (
    BARE,
    OWN,
    PLACES,
    PUBLISHED,
    PUBLISHED_TEXTS,
    Digests,
    JudgePrompt,
    extract,
    read_prompt,
)
from touchstone.table import as_read_back, read_answers

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "metrics"
PROMPT = SHARED / "touchstone_judge_prompt.json"
TEXT = st.text(max_size=30)
VALUES = TEXT | st.sampled_from(["{question}", "{prompt}", "{}", "{0}", "{", r"\1 \g<0>", "%s"])

needs_prompt = pytest.mark.skipif(
    not PROMPT.is_file(), reason="the published prompt is not beside this checkout"
)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def bare(template):
    return re.sub(r"\{\w+\}", BARE, template)


def digests_of(prompt):
    template = sha256(bare(prompt.template))
    return Digests(sha256(prompt.system), template, sha256(prompt.instruction))


# What is sent


@given(VALUES, VALUES, VALUES, VALUES)
def test_texts_stand_in_their_places_as_they_are(annotation, question, one, two):
    """Whatever braces they hold: none is filled again."""
    system, user = OWN.messages(annotation, question, one, two)
    parts = re.split(r"\{\w+\}", OWN.template)
    texts = (annotation, question, one, two, OWN.instruction)
    expected = "".join(a + b for a, b in zip(parts, (*texts, ""), strict=True))
    assert {"role": "user", "content": expected} == user
    assert {"role": "system", "content": OWN.system} == system


@needs_prompt
def test_recorded_queries(tmp_path):
    """Every question to the judge is the published script's, to the letter, in both orders."""
    told = json.loads((SHARED / "touchstone_cases.json").read_text("utf-8"))["pipeline"]
    path = tmp_path / "answers.tsv"
    path.write_text(told["tsv"], encoding="utf-8")
    prompt = read_prompt(PROMPT)
    for found in (read_answers(path), as_read_back(read_answers(path))):
        asked = []
        for each in found:
            pair = each.reference, each.response
            for one, two in (pair, pair[::-1]):
                asked.append(prompt.messages(each.annotation, each.question, one, two))
        assert told["queries"] == [user["content"] for _, user in asked]
        assert {told["api_call"]["system"]} == {system["content"] for system, _ in asked}
    assert ["system", "user"] == told["api_call"]["roles"] == [m["role"] for m in asked[0]]


def test_our_own_prompt_is_ours():
    """It is not taken for the published one, and says what the parser of replies wants."""
    assert not OWN.published
    assert digests_of(OWN) != PUBLISHED_TEXTS
    assert "one space" in OWN.instruction
    assert "from 1 " in OWN.instruction
    assert " to 10 " in OWN.instruction


@needs_prompt
def test_our_own_words():
    """No run of five words is the authors'."""

    def runs(prompt):
        words = re.findall(
            r"\w+", f"{prompt.system} {prompt.template} {prompt.instruction}".lower()
        )
        return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}

    assert set() == runs(OWN) & runs(read_prompt(PROMPT))


@needs_prompt
def test_the_published_prompt_stands_nowhere_in_the_repository():
    """Not a sentence of it: it is the authors'."""
    told = read_prompt(PROMPT)
    texts = (told.system, told.instruction, *re.split(r"\{\w+\}", told.template))
    sentences = {s.strip() for text in texts for s in re.split(r"[.\n]", text) if len(s) > 24}
    assert len(sentences) > 6
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    found = {}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 5_000_000:
            content = path.read_text(encoding="utf-8", errors="ignore")
            if held := [text for text in sentences if text in content]:
                found[name] = held
    assert {} == found


# Prompts by hand


def told_by(prompt):
    return {"system": prompt.system, "template": prompt.template, "instruction": prompt.instruction}


def put(folder, told, name="prompt.json"):
    path = folder / name
    path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
    return path


@needs_prompt
def test_published_prompt_by_hand(tmp_path):
    """Known by its digest; any change makes it another one, swapped answers not least."""
    prompt = read_prompt(PROMPT)
    assert (True, PUBLISHED) == (prompt.published, prompt.digest)
    assert digests_of(prompt) == PUBLISHED_TEXTS
    swapped = prompt.template.replace("answer_1", "x").replace("answer_2", "answer_1")
    for other in (
        replace(prompt, system=prompt.system + " "),
        replace(prompt, template=prompt.template.rstrip()),
        replace(prompt, template=swapped.replace("{x}", "{answer_2}")),
        replace(prompt, instruction=prompt.instruction.lower()),
    ):
        assert not other.published


def test_prompt_by_hand(tmp_path):
    """An object with three texts; what else it holds is passed over."""
    path = put(tmp_path, {**told_by(OWN), "api": {"model": "gpt-4"}})
    assert OWN == read_prompt(path)
    braces = replace(OWN, template=OWN.template + '{"score": {x}}')
    assert braces == read_prompt(put(tmp_path, told_by(braces)))
    assert '{"score": {x}}' in braces.messages("a", "b", "c", "d")[1]["content"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": None}, "system: input should be a valid string, None found"),
        ({"system": " \n"}, "field 'system': the text is empty"),
        ({"instruction": ["a"]}, "instruction: input should be a valid string, ['a'] found"),
        (
            {"template": "{question}"},
            "field 'template': the place {human_annotation} once expected, found 0 times",
        ),
        (
            {"template": OWN.template + "{answer_2}"},
            "field 'template': the place {answer_2} once expected, found 2",
        ),
        (
            {"template": OWN.template.replace("_1", "1")},
            "field 'template': the place {answer_1} once expected, found 0",
        ),
    ],
)
def test_a_malformed_prompt_is_refused(tmp_path, change, said):
    """With the file and the field."""
    path = put(tmp_path, {**told_by(OWN), **change})
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: {re.escape(said)}"):
        read_prompt(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("prompt.txt", "a", "a judge's prompt in a file .json, or the authors' .py, expected"),
        ("prompt.json", "{", "invalid JSON: "),
        ("prompt.json", "[" * 100_000, "invalid JSON: "),
        ("prompt.json", "[]", r"input should be an object, \[\] found"),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path, name, content, said):
    with pytest.raises(DataError, match=said):
        read_prompt(put(tmp_path, content, name))
    with pytest.raises(DataError, match="no such file"):
        read_prompt(tmp_path / "gone.json")


# The authors' script

NAMES = ("cap", "ques['text']", "ans1", "answers[1]", "instruction")


def literal(text):
    return repr(text)


def implicit(text):
    """A literal a line, as formatters break them."""
    return "(" + "\n    ".join(repr(part) for part in re.findall(r"(?s).{1,17}", text)) + ")"


def added(text):
    return " + \\\n ".join(repr(part) for part in re.findall(r"(?s).{1,17}", text))


def lines(text):
    return r"'\n'.join([" + ",\n  ".join(repr(part) for part in text.split("\n")) + "])"


def quoted(text):
    """Between three quotes, set in as in a function."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\n        ")
    return f'"""\n        {inner}\n        """'


def renamed(template):
    """The places with a script's own names."""
    return re.sub(r"\{\w+\}", lambda m: f"{{x_{PLACES.index(m[0][1:-1])}}}", template)


def formatted(template):
    """An f-string, parts of it in literals of their own."""
    names = iter(NAMES)
    parts = re.split(r"\{\w+\}", template)
    return (
        "("
        + "\n ".join(
            f"f{part!r}" + (f' f"{{{next(names)}}}"' if n < len(PLACES) else "")
            for n, part in enumerate(parts)
        )
        + ")"
    )


def summed(template):
    parts = [repr(part) for part in re.split(r"\{\w+\}", template)]
    return (
        "".join(f"{part} + {name} + " for part, name in zip(parts, NAMES, strict=False)) + parts[-1]
    )


SPELLINGS = [literal, implicit, added, lines, quoted]
TEMPLATES = [
    *SPELLINGS,
    lambda text: literal(renamed(text)) + ".format(x_0=1, x_1=2, x_2=3, x_3=4, x_4=5)",
    lambda text: literal(bare(text)) + ".format(*rows)",
    lambda text: implicit(renamed(text)) + ".format(**row)",
    lambda text: literal(bare(text).replace(BARE, "%s")) + " % (a, b, c, d, e)",
    formatted,
    summed,
]


def script(prompt, spell, template):
    return f"""# -*- coding: utf-8 -*-
import openai
assert nothing_is_defined  # the script is never run

def ask(content, cap, ques):
    return openai.create(model="gpt-4", messages=[
        {{"role": "system", "content": {spell(prompt.system)}}},
        {{"role": "user", "content": content}},
    ], temperature=0)

class Judge:
    RULE = dict(prompt={spell(prompt.instruction)}, other="x" * 10 ** 9)

    def content(self):
        return ask({template(prompt.template)}, 1, 2)
"""


def assert_found(folder, prompt, spell, template):
    path = put(folder, script(prompt, spell, template), "eval.py")
    assert prompt == extract(path, digests_of(prompt)), path.read_text("utf-8")


@pytest.mark.parametrize("spell", SPELLINGS)
def test_prompt_is_found_in_a_script(tmp_path, spell):
    """However it is written: nothing of the script is run."""
    for template in TEMPLATES:
        ends = "" if template is quoted else "\n\n"  # that one strips
        prompt = replace(OWN, template=f"{OWN.template.strip()}{ends}")
        assert_found(tmp_path, prompt, spell, template)


@needs_prompt
@pytest.mark.parametrize("spell", SPELLINGS)
def test_published_prompt_is_found_in_a_script(tmp_path, spell):
    """And is then the published one, by the names that its places have here."""
    prompt = read_prompt(PROMPT)
    for template in TEMPLATES:
        path = put(tmp_path, script(prompt, spell, template), "eval.py")
        found = read_prompt(path)
        assert (True, prompt) == (found.published, found)


@given(TEXT.filter(str.strip), TEXT.filter(str.strip), st.sampled_from(SPELLINGS[:4]))
def test_any_prompt_is_found_in_a_script(tmp_path_factory, system, instruction, spell):
    """Quotes, escapes, line breaks and all."""
    prompt = JudgePrompt(system, OWN.template, instruction)
    assert_found(tmp_path_factory.getbasetemp(), prompt, spell, literal)


def test_part_of_a_prompt_is_none(tmp_path):
    """It says which text is not there, and what to do."""
    content = script(OWN, literal, literal).replace("useless", "useful")
    path = put(tmp_path, content, "eval.py")
    with pytest.raises(DataError, match=r"no text in it is its instruction\. Give the prompt"):
        extract(path, digests_of(OWN))
    said = f"{path}: the judge's published prompt expected; no text in it is its system or its "
    with pytest.raises(DataError, match=f"{said}template or its instruction.*--judge-prompt FILE"):
        read_prompt(path)


def chain(count, part="'a'"):
    return "x = " + " + ".join([part] * count)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no text in it is its system"),
        ("def f(:", "Python script expected, SyntaxError found"),
        ("<html>Not found", "Python script expected, SyntaxError found"),
        ("x = 1\0", "Python script expected, (SyntaxError|ValueError) found"),
        ("# coding: nonsense\nx = 1", "Python script expected, SyntaxError found"),
        ("x = " + "(" * 10_000 + ")" * 10_000, "Python script expected"),
        ("x = " + "[" * 90 + "]" * 90, "no text in it"),
        ("x = " + "-" * 100_000 + "1", "Python script expected, (RecursionError|MemoryError)"),
        ("x = " + "f(" * 150 + ")" * 150, "no text in it|Python script expected"),
        ("x" + ".y" * 50_000, "Python script expected, (RecursionError|MemoryError)"),
        (chain(20_000), "Python script expected, (RecursionError|MemoryError)"),
        (chain(900, repr("a" * 1000)), "no text in it|Python script expected, RecursionError"),
        ("x = 10 ** 10 ** 10\ny = 'a' * 10 ** 12", "no text in it is its system"),
        ("raise SystemExit(open('/etc/passwd').read())", "no text in it is its system"),
        (r"x = '\d \ud800'", "no text in it is its system"),
        ("x = " + "9" * 10_000, "Python script expected, SyntaxError found|no text in it"),
        ("#" * 1_000_001, "1,000,001 bytes, more than the limit of 1,000,000"),
    ],
)
def test_a_hostile_script_is_refused(tmp_path, content, said):
    """It is read as data, within bounds, and an error says what to do."""
    path = put(tmp_path, content, "eval.py")
    with pytest.raises(DataError, match=rf"eval\.py: .*({said})") as caught:
        extract(path)
    assert len(str(caught.value)) < 500
