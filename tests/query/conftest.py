"""A database of coloured stripes."""

from pathlib import Path

import pytest

from retclip.shards import Database
from tests.fakes import StripeCorpus, build_stripes

PICTURES = [["red", "blue"], ["green", "red"], ["blue", "grey"], ["red", "green", "blue"]]


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """10 segments of red, green, blue and grey (stuff); nothing of it is yellow."""
    folder: Path = tmp_path_factory.mktemp("stripes")
    return build_stripes(folder / "stripes.retdb", StripeCorpus.write(folder / "photos", PICTURES))[0]
