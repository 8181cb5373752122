"""A copy of the package with something wrong: what import says, and that JAX itself works."""

import pytest

from soak import imports
from soak.imports import SITUATIONS

pytestmark = pytest.mark.cpu_only


@pytest.mark.parametrize("name", SITUATIONS)
def test_import_says_what_is_wrong_or_works(name, tmp_path):
    assert imports.wrong(SITUATIONS[name], tmp_path) == ""


def test_a_missing_message_and_a_crash_are_noticed(tmp_path):
    silent = SITUATIONS["no CPU module"]._replace(said=("no such remedy",))
    assert imports.wrong(silent, tmp_path / "a").startswith("not said: ['no such remedy']")
    works = silent._replace(script=imports.WORKS)
    assert "exit status 1" in imports.wrong(works, tmp_path / "b")
