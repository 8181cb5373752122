"""A copy of the package with something wrong: what import says, and that JAX itself works."""

import pytest

from testing import damaged_installs
from testing.damaged_installs import SITUATIONS

pytestmark = pytest.mark.cpu_only


@pytest.mark.parametrize("name", SITUATIONS)
def test_import_says_what_is_wrong_or_works(name, tmp_path):
    assert damaged_installs.wrong(SITUATIONS[name], tmp_path) == ""


def test_a_missing_message_and_a_crash_are_noticed(tmp_path):
    silent = SITUATIONS["no CPU module"]._replace(said=("no such remedy",))
    assert damaged_installs.wrong(silent, tmp_path / "a").startswith("not said: ['no such remedy']")
    works = silent._replace(script=damaged_installs.WORKS)
    assert "exit status 1" in damaged_installs.wrong(works, tmp_path / "b")
