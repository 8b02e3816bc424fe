"""Each reported failure that is collected beside the project has a test of the right outcome."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = HERE.parents[1] / "shared" / "cases"
AREAS = ("answers-and-data", "environment", "hostile")
MARK = re.compile(r'pytest\.mark\.case\(\s*((?:"[^"]+"[,\s]*)+)\)')
ANSWER_FILES = 19  # answers-and-data/01 to 19: files of other programs, which are not read yet


def marked():
    """Names of all cases that a test carries, such as environment/06."""
    found = set()
    for file in HERE.glob("**/test_*.py"):
        for names in MARK.findall(file.read_text(encoding="utf-8")):
            found |= set(re.findall(r'"([^"]+)"', names))
    return found


def test_a_mark_names_a_case():
    """A misspelt mark would count for nothing."""
    pattern = re.compile(rf"({'|'.join(AREAS)})/\d\d")
    assert [name for name in marked() if not pattern.fullmatch(name)] == []


def test_every_case_has_a_test():
    """A case that is added beside the project fails here until somebody tests it."""
    if not CASES.is_dir():
        pytest.skip("needs ../shared/cases, which is not part of the project")
    folders = [folder for area in AREAS for folder in (CASES / area).iterdir() if folder.is_dir()]
    names = {f"{folder.parent.name}/{folder.name[:2]}" for folder in folders}
    later = {f"answers-and-data/{number:02}" for number in range(1, ANSWER_FILES + 1)}
    assert sorted(names - later - marked()) == []
