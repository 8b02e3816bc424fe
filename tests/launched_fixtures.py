"""Fixtures of the tests of launches: a back end, data, and the bytes of an undisturbed run."""

import pytest
from launched import asking_fragile, make_groups, offer_fragile, results, run


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with the fragile back end, for PYTHONPATH."""
    return offer_fragile(tmp_path_factory.mktemp("site") / "site")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Sixteen pictures with ten questions on each; tests only read it."""
    return make_groups(tmp_path_factory.mktemp("data") / "data", 16, 10)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, site, data):
    """What an undisturbed run of one process with the fragile back end writes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, said = run(*asking_fragile("quick", data, out), site=site)
    assert code == 0, said
    return results(out)
