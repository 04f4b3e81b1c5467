"""Write the playground's class lists: all classes, those that training may see, and the latter for evaluation.

Run: python -m scripts.make_playground_lists
"""

from __future__ import annotations

from pathlib import Path

import retclip
from retclip.corpora.playground.classes import CLASSES

NOTE = "# Written by scripts/make_playground_lists.py."


def lists() -> dict[str, str]:
    """Text of every list by its path inside the package; ids are the playground's category ids."""
    lines = [
        (c.seen, f"{n}\t{'thing' if c.is_thing else 'stuff'}\t{', '.join(c.names)}") for n, c in enumerate(CLASSES, 1)
    ]
    seen = [line for is_seen, line in lines if is_seen]
    names = [c.name for c in CLASSES if c.seen]
    every = [f"# The playground, {len(lines)} classes.", NOTE, *(line for _, line in lines)]
    return {
        "vocabularies/playground.txt": "\n".join(every) + "\n",
        "vocabularies/playground-seen.txt": "\n".join([f"# The playground, {len(seen)} seen classes.", NOTE, *seen])
        + "\n",
        "evaluation/splits/playground_seen.txt": "\n".join(
            [f"# Seen classes of @playground: {len(names)}.", NOTE, *names]
        )
        + "\n",
    }


def main() -> None:
    """Write all lists."""
    for name, text in lists().items():
        path = Path(retclip.__file__).parent / name
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
