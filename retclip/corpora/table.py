"""A table of photos: CSV, TSV, JSON lines or Parquet, one row per photo.

Columns: `path` (or `image`, `file_name`) beside any of `labels` or `label`, `caption`, `boxes`, `split`, `license`,
`attribution`, `id`. Paths are relative to the table. `labels` is a list, or names separated by `|` or `;`; `boxes` is
`[[x0, y0, x1, y1, label], ...]` in pixels of the upright photo. Rows are streamed and keep their order; what stays in
memory is the class list and a short digest per row, which finds repeated ids.
"""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retclip.core.errors import InputError
from retclip.corpora.annotations import missing_files, rectangle
from retclip.corpora.cells import LabelledBox, parse_boxes, parse_captions, parse_labels, parse_text
from retclip.corpora.rows import Row, is_table, read_rows, table_problem
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind

_PATHS = ("path", "image", "file_name")
_LABELS = ("labels", "label")
_CAPTIONS = ("caption",)
_OTHERS = ("boxes", "split", "license", "attribution", "id")


@dataclass(frozen=True)
class TableColumns:
    """Names of columns that are not the usual ones; None looks for the usual ones."""

    path: str | None = None
    labels: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class TableImage(CorpusImage):
    """A photo with the boxes of its row, so that the table need not be searched again."""

    boxes: tuple[LabelledBox, ...] = ()


class TableCorpus:
    """Photos that a table lists. The whole table is read once when it is opened, so errors come before a build.

    Args:
        root: the table, or the folder that holds it; no path may leave this folder (or the table's).
        split: keep only rows with this value in the column `split`; None keeps all.
        table: which file, where the root is a folder with several tables.
        columns: names of columns.
        comments: skip lines of a CSV or TSV file that start with `#`.

    Raises:
        InputError: E105 naming the line, E117 for a path outside the root, E101 if no listed photo exists, E106 if no
            row has labels, boxes or captions.
    """

    name = "table"

    def __init__(
        self, root: Path, split: str | None, table: Path | None, columns: TableColumns, comments: bool = False
    ) -> None:
        self._table = root if root.is_file() else _find_table(root, table)
        self._root = (root.parent if root.is_file() else root).resolve()
        self._columns, self._comments = columns, comments
        self.split = split
        self._missing: list[str] = []
        self._labels: dict[str, None] = {}
        self._has_boxes = False
        self._size = 0
        self._survey()

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """Every label of the table in alphabetical order; tables do not tell things from stuff, all count as things."""
        return tuple(CorpusClass(label, label, (), True) for label in sorted(self._labels))

    def size(self) -> int:
        """Pictures that `images` gives."""
        return self._size

    def images(self) -> Iterator[CorpusImage]:
        """Photos on disk in the order of their rows; the id is the column `id`, or else the path as written."""
        for _, image in self._records():
            if _exists(image.path):
                yield image

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """The boxes of a photo, see `Corpus.regions`.

        Raises:
            InputError: E106 for masks, and for boxes of a table without any.
        """
        if kind == "masks" or not self._has_boxes:
            raise InputError(
                "E106",
                f"{self._table.name} has no {kind}.",
                why="A table can hold boxes in a column 'boxes', but no masks.",
                fix="Use --use-boxes." if self._has_boxes else "Leave out --use-boxes and --use-masks.",
            )
        assert isinstance(image, TableImage)
        regions = []
        for found in image.boxes:
            box, mask = rectangle(str(image.path), found.box, size)
            regions.append(Region(found.label, (), True, mask, box, False, "table.boxes", "box"))
        return regions

    def warnings(self) -> list[str]:
        """Photos that are listed but missing."""
        return missing_files("listed photos are not on disk and are left out", self._missing)

    def _survey(self) -> None:
        seen: set[bytes] = set()
        rows = captions = 0
        for row, image in self._records():
            rows += 1
            digest = hashlib.sha256(image.image_id.encode(errors="surrogatepass")).digest()[:8]
            if digest in seen:
                raise table_problem(
                    self._table,
                    row.line,
                    f"'{image.image_id}' stood there before.",
                    "Write one row per photo: several labels in one cell (a|b), several boxes in one list.",
                )
            seen.add(digest)
            self._labels.update(dict.fromkeys(label.name for label in image.labels))
            self._has_boxes = self._has_boxes or bool(image.boxes)
            captions += len(image.captions)
            if not _exists(image.path):
                self._missing.append(image.path.name)
        self._size = rows - len(self._missing)
        if self._size == 0:
            why = f"None of the {rows:,} listed photos exists." if rows else "The table lists no photo of this split."
            raise InputError(
                "E101", f"No images for {self._table}.", why=why, fix="Check --root, --split and the paths."
            )
        if not self._labels and not captions:
            raise InputError(
                "E106",
                f"No label information: {rows:,} images, no labels, boxes or captions.",
                why=f"Looked for the columns {', '.join((*self._label_columns, 'boxes', *self._caption_columns))}.",
                fix="Name the columns with --labels-column or --caption-column.",
            )

    @property
    def _label_columns(self) -> tuple[str, ...]:
        return (self._columns.labels,) if self._columns.labels else _LABELS

    @property
    def _caption_columns(self) -> tuple[str, ...]:
        return (self._columns.caption,) if self._columns.caption else _CAPTIONS

    def _path_column(self, row: Row) -> str:
        wanted = (self._columns.path,) if self._columns.path else _PATHS
        found = next((name for name in wanted if row.values.get(name)), None)
        if found is None:
            why = f"It has none of the columns {', '.join(wanted)}, or they are empty; addresses (url) are not fetched."
            raise table_problem(self._table, row.line, why, "Download the photos and name their files.")
        return found

    def _records(self) -> Iterator[tuple[Row, TableImage]]:
        paths = (self._columns.path,) if self._columns.path else _PATHS
        wanted = frozenset((*paths, *self._label_columns, *self._caption_columns, *_OTHERS))
        for row in read_rows(self._table, wanted, self._comments):
            try:
                image = self._parse(row)
            except ValueError as error:
                raise table_problem(
                    self._table, row.line, str(error), "Mend this row, or leave the cell empty."
                ) from error
            if self.split is None or image.split == self.split:
                yield row, image

    def _parse(self, row: Row) -> TableImage:
        values = row.values
        written = parse_text(values[self._path_column(row)])
        boxes = parse_boxes(values.get("boxes"))
        names = [name for column in self._label_columns for name in parse_labels(values.get(column))]
        labels = dict.fromkeys([*names, *(found.label for found in boxes)])
        captions = [text for column in self._caption_columns for text in parse_captions(values.get(column))]
        return TableImage(
            source=self.name,
            image_id=parse_text(values.get("id")) or written,
            path=self._contained(written, row),
            split=parse_text(values.get("split")),
            labels=tuple(ImageLabel(label, "table", 1.0, True) for label in labels),
            captions=tuple(captions),
            license=parse_text(values.get("license")),
            attribution=parse_text(values.get("attribution")),
            boxes=boxes,
        )

    def _contained(self, written: str, row: Row) -> Path:
        """Absolute path of a photo. Links are followed first: a link is another way out of the root."""
        path = Path(os.path.realpath(self._table.parent / written))
        if not path.is_relative_to(self._root):
            raise InputError(
                "E117",
                f"{self._table.name}:{row.line} leads out of the corpus: {written[:200]}",
                why=f"Photos must lie below {self._root}.",
                fix="Move the photos there, or pass a --root that holds both the table and the photos.",
            )
        return path


def _exists(path: Path) -> bool:
    # os.path: Path.is_file raises for names longer than the file system allows.
    return os.path.isfile(path)  # noqa: PTH113


def _find_table(root: Path, table: Path | None) -> Path:
    if table is not None:
        return root / table
    found = sorted(path for path in root.iterdir() if path.is_file() and is_table(path))
    if len(found) == 1:
        return found[0]
    raise InputError(
        "E101",
        f"{'Several tables' if found else 'No table'} in {root}.",
        why=f"Found {', '.join(path.name for path in found[:5])}." if found else "Looked for CSV, TSV, JSONL, Parquet.",
        fix="Pass the file itself as --root.",
    )
