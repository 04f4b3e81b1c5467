"""What is asked of a search."""

from __future__ import annotations

from dataclasses import dataclass

from retclip.core.errors import require


@dataclass(frozen=True)
class Request:
    """What is asked: the `k` nearest live rows of these classes.

    Attributes:
        k: places per query, > 0.
        classes: effective class ids, ascending.
        per_class_k: at most so many hits of one class, None = no limit.
        transform: key transform under which distance is measured.
    """

    k: int
    classes: tuple[int, ...]
    per_class_k: int | None
    transform: str

    def check(self) -> None:
        """Raise ValueError for counts below 1."""
        require(self.k > 0, "k", "> 0", self.k)
        require(self.per_class_k is None or self.per_class_k > 0, "per_class_k", "> 0", self.per_class_k)

    @property
    def cap(self) -> int | None:
        """`per_class_k` where it can matter, else None."""
        return self.per_class_k if self.per_class_k is not None and self.per_class_k < self.k else None
