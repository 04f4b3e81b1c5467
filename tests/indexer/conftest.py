"""Pictures of coloured stripes to build from."""

from pathlib import Path

import pytest

from tests.fakes import StripeCorpus

PICTURES = [
    ["red", "blue"],
    ["green"],
    ["blue", "grey", "red"],
    ["yellow", "red"],
    ["green", "green"],
    ["grey"],
    ["blue"],
]


@pytest.fixture
def corpus(tmp_path: Path) -> StripeCorpus:
    """7 pictures with 12 stripes of 5 colours."""
    return StripeCorpus.write(tmp_path / "photos", PICTURES, {"red": ("scarlet",), "blue": ("red", "navy")})
