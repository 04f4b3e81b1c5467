"""What a test lacks: a reason to skip on a user's machine, a failure where RETCLIP_REQUIRE_DATA=1 promises all."""

from __future__ import annotations

import importlib.util
import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI: there, nothing may go untested because something is missing."""
    if os.environ.get("RETCLIP_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def require_library(name: str, extra: str) -> None:
    """The rest of a test needs a library of an extra."""
    if importlib.util.find_spec(name) is None:
        absent(f'{name} is not installed: pip install "retclip[{extra}]"')
