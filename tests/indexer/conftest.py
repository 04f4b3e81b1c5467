"""Pictures of coloured stripes to build from."""

from pathlib import Path

import pytest

from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions
from retclip.shards import Database
from tests.fakes import ColourEncoder, StripeCorpus

PICTURES = [
    ["red", "blue"],
    ["green"],
    ["blue", "grey", "red"],
    ["yellow", "red"],
    ["green", "green"],
    ["grey"],
    ["blue"],
]
STRIPES = 12


@pytest.fixture
def corpus(tmp_path: Path) -> StripeCorpus:
    """7 pictures with 12 stripes of 5 colours."""
    return StripeCorpus.write(tmp_path / "photos", PICTURES, {"red": ("scarlet",), "blue": ("red", "navy")})


def request_of(corpus: StripeCorpus) -> BuildRequest:
    return BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), batch=2, thumbnails=16)


def create(path: Path) -> Database:
    return Database.create(path, ColourEncoder().space, {"name": "fake"})
