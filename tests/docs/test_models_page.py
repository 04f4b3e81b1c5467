"""docs/models.md is what scripts/make_models_page.py writes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_page_is_up_to_date() -> None:
    script = ROOT / "scripts" / "make_models_page.py"
    done = subprocess.run([sys.executable, str(script), "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python scripts/make_models_page.py"
