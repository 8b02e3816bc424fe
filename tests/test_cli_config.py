"""Configurations: what a mistake in one says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.config import Config, read_config
from eval.errors import UsageError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.toml"))
GOOD = 'model = "demo"\n# a remark\ntasks = [\n    "okvqa",\n    "refcoco",\n]\n'


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_our_own_are_right(path):
    assert read_config(path).tasks


def test_every_row_of_the_card_that_is_ours_has_one():
    """Both models, their two hidden 4-shot rows, and the demo."""
    rows = {(config.model, config.few_shot) for config in (read_config(path) for path in CONFIGS)}
    models = ("Qwen/Qwen-VL", "Qwen/Qwen-VL-Chat")
    assert rows == {*((model, shots) for model in models for shots in (0, 4)), ("demo", 0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'modle = "x"\n', r"line 7: key 'modle' is not known; did you mean 'model'\?"),
        (GOOD + 'dtype = "bfloat"\n', r"line 7: key 'dtype': .* did you mean 'bfloat16'\?"),
        (GOOD + "few_shot = -1\n", r"line 7: key 'few_shot': .* expected, -1 found"),
        (GOOD + "few_shot = true\n", r"line 7: key 'few_shot': .* expected, True found"),
        (GOOD + "batch_size = 0\n", "line 7: key 'batch_size'"),
        (GOOD + 'protocol = "publish"\n', "line 7: key 'protocol'.*did you mean 'published'"),
        (
            GOOD.replace('"refcoco"', '"refcocoo"'),
            r"line 5: key 'tasks': no task .* 'refcocoo'; did you mean 'refcoco'\?",
        ),
        ('model = "demo"\ntasks = []\n', "line 2: key 'tasks': .* an empty one found"),
        ('model = "demo"\ntasks = [3]\n', "line 2: key 'tasks': a list of task names expected"),
        ('tasks = ["okvqa"]\n', "key 'model' is missing"),
        ("model = \n", "not TOML: .*line 1"),
        ("\xff", None),
    ],
)
def test_a_mistake_names_line_key_and_the_nearest(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: no such file"):
        read_config(tmp_path / "none.toml")


@given(
    st.dictionaries(
        st.sampled_from([*Config.__dataclass_fields__, "other"]),
        st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from(["demo", "okvqa", "auto"])),
    )
)
def test_values_of_any_kind_are_taken_or_refused(tmp_path_factory, values):
    """Never anything but a Config or a UsageError."""
    path = tmp_path_factory.mktemp("config") / "c.toml"
    written = {k: str(v).lower() if isinstance(v, bool) else repr(v) for k, v in values.items()}
    path.write_text("".join(f"{key} = {value}\n" for key, value in written.items()))
    try:
        assert isinstance(read_config(path), Config)
    except UsageError as error:
        assert "c.toml" in str(error)  # noqa: PT017 - either outcome is right
