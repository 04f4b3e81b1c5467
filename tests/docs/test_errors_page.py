"""docs/errors.md lists exactly the codes that the package raises."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_page_and_code_name_the_same_errors() -> None:
    raised = set()
    for path in (ROOT / "retclip").rglob("*.py"):
        raised |= set(re.findall(r'"(E\d{3})"', path.read_text(encoding="utf-8")))
    described = re.findall(r"^### (E\d{3})$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(raised) == sorted(described)
