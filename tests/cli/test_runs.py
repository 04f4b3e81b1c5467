"""How many failures a run may have."""

from __future__ import annotations

import pytest

from retclip.cli.options import parse_share
from retclip.cli.runs import judge
from retclip.core.errors import FailuresError, InputError
from retclip.indexer.report import RunReport
from retclip.indexer.units import Failure


def report(images: int, failed: int) -> RunReport:
    failures = (Failure("x", "x.jpg", "E114", "damaged"),) * failed
    return RunReport("db", 1, images, 0, 0, 0, {}, 0, "", 0.0, failures, ())


@pytest.mark.parametrize(
    ("text", "images", "most"),
    [("0", 9, 0), ("3", 9, 3), ("44%", 9, 3), ("45%", 9, 4), ("0.5", 9, 4), ("1%", 99, 0), ("1%", 100, 1), ("1", 9, 1),
     ("100%", 9, 9), ("0%", 9, 0)],
)  # fmt: skip
def test_a_share_or_a_number_may_fail(text: str, images: int, most: int) -> None:
    judge(report(images, most), parse_share(text))
    if most < images:
        with pytest.raises(FailuresError, match=f"{most + 1} of {images}"):
            judge(report(images, most + 1), parse_share(text))


@pytest.mark.parametrize("text", ["x", "-1", "nan", "nan%", "101%", "-1%", "", "%", "1%%"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_share(text)
    assert caught.value.code == "E123"
