"""Datasets of the library `datasets` (extra `hf`): Parquet, Arrow, folders of pictures, or by name from the hub.

Columns are found by their usual names or given; the class of a picture is a word, a number with a name, or a list of
either. Rows are streamed, pictures stay encoded until they are used, and no loading script is ever run.
"""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from retclip.core.errors import InputError, translated
from retclip.corpora.cells import parse_captions
from retclip.corpora.folder import SPLIT_NAMES
from retclip.corpora.hf_columns import ChosenColumns, choose_columns, read_labels, value_of
from retclip.corpora.hf_loading import open_dataset, unreadable
from retclip.corpora.table import TableColumns
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind


class HfCorpus:
    """Rows of one split; the id of a picture is the number of its row.

    Where the only column is the picture and the pictures lie in folders, the folder is the class: the library drops
    the labels of a folder with a single class.

    Args:
        place: file, folder or name on the hub, see `open_dataset`.
        split: its name; None takes train, or else the only one.
        columns: names of columns that are not the usual ones.
        class_names: classes by number, where the dataset does not name them.

    Raises:
        InputError: E103, E127 or E128 if the dataset cannot be opened, E129 if it has no pictures, E106 if it has
            neither labels nor captions or its classes are numbers without names.
    """

    name = "hf"

    def __init__(self, place: Path, split: str | None, columns: TableColumns, class_names: Sequence[str] = ()) -> None:
        opened = open_dataset(place, split)
        self.split, self._root, self._length = opened.split, opened.root, opened.length
        self._place = place
        features = self._features(opened.rows)
        self._columns = choose_columns(features, columns, class_names)
        self._by_folder = list(features) == [self._columns.picture] and self._root is not None
        self._rows = _keep_encoded(opened.rows, features, self._columns)
        self._left_out: Counter[str] = Counter()
        if not (self._columns.labels or self._columns.captions or self._by_folder):
            raise self._unlabelled(features)

    @cached_property
    def classes(self) -> tuple[CorpusClass, ...]:
        """Classes by number, or else every label in alphabetical order, which costs one reading of the labels."""
        names = self._columns.names or sorted({label.name for label in self._survey()})
        return tuple(CorpusClass(name, name, (), True) for name in dict.fromkeys(names))

    def size(self) -> int | None:
        """Rows as the dataset states them, None where it does not."""
        return self._length

    def images(self) -> Iterator[CorpusImage]:
        """Pictures in the order of the rows.

        Raises:
            InputError: E101 after the last row if there was no picture, E106 for a label that is a number without
                name, and after the last row of a folder of pictures without class.
        """
        self._left_out.clear()
        count = labelled = 0
        for number, row in enumerate(self._read(self._rows)):
            path, data = self._picture(row)
            if path is None:
                continue
            labels = self._folder_label(path) if self._by_folder else self._labels(row, number)
            count, labelled = count + 1, labelled + bool(labels)
            yield CorpusImage(
                source=self.name,
                image_id=str(number),
                path=path,
                split=self.split,
                labels=labels,
                captions=self._texts(row, self._columns.captions),
                license=" ".join(self._texts(row, self._columns.license)),
                attribution=" ".join(self._texts(row, self._columns.origin)),
                data=data,
            )
        if count == 0:
            raise InputError(
                "E101",
                f"No images in {self._place}.",
                why=f"Column '{self._columns.picture}'. {' '.join(self.warnings()[:1])}",
                fix="Check --root and --split.",
            )
        if self._by_folder and not labelled:
            raise self._unlabelled([self._columns.picture])

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Datasets have no common form for regions. Raises InputError E106."""
        raise InputError(
            "E106",
            f"The source 'hf' has no {kind}.",
            why="Its labels are for whole pictures.",
            fix="Leave out --use-boxes and --use-masks, or write the boxes into a table (--source table).",
        )

    def warnings(self) -> list[str]:
        """Rows that were left out, as far as `images` was read."""
        return [f"{count:,} rows {what}" for what, count in self._left_out.items()]

    def _features(self, rows: Any) -> Mapping[str, Any]:
        """Types by column; where only reading can tell, the columns of the first row without types."""
        if rows.features is not None:
            return dict(rows.features)
        return dict.fromkeys(next(self._read(rows), {}))

    def _read(self, rows: Any) -> Iterator[dict[str, Any]]:
        # Damaged files show only now, as any type of error.
        with translated(lambda error: unreadable(str(self._place), error)):
            yield from rows

    def _survey(self) -> Iterator[ImageLabel]:
        if self._by_folder:
            for row in self._read(self._rows):
                path, _ = self._picture(row)
                yield from self._folder_label(path) if path else ()
        elif self._columns.labels:
            rows = self._rows.select_columns([self._columns.labels.partition(".")[0]])
            for number, row in enumerate(self._read(rows)):
                yield from self._labels(row, number)

    def _picture(self, row: Mapping[str, Any]) -> tuple[Path | None, bytes | None]:
        value = row.get(self._columns.picture)
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
        if isinstance(data, bytes) and data:
            return self._place, data
        if not isinstance(path, str) or not path:
            return self._leave_out("have no picture")
        if self._root is None or "://" in path:
            return self._leave_out("name files that are not on this disk")
        # Links are followed first: a link is another way out of the dataset.
        found = Path(os.path.realpath(self._root / path))
        if not found.is_relative_to(self._root):
            return self._leave_out("name files outside the dataset")
        return (found, None) if os.path.isfile(found) else self._leave_out("name files that do not exist")  # noqa: PTH113

    def _leave_out(self, why: str) -> tuple[None, None]:
        self._left_out[why] += 1
        return None, None

    def _labels(self, row: Mapping[str, Any], number: int) -> tuple[ImageLabel, ...]:
        try:
            found = list(read_labels(value_of(row, self._columns.labels), self._columns.names))
        except (ValueError, TypeError) as error:
            raise InputError(
                "E106",
                f"Cannot use the labels in column '{self._columns.labels}'.",
                why=f"Row {number}: {error}.",
                fix="Pass the names in the order of their numbers with --class-names, or another --labels-column.",
            ) from error
        return tuple({label.name: label for label in found if label.name}.values())

    def _folder_label(self, path: Path) -> tuple[ImageLabel, ...]:
        assert self._root is not None  # by_folder
        folders = path.relative_to(self._root).parts[:-1]
        if folders and folders[0].casefold() in SPLIT_NAMES:
            folders = folders[1:]
        return (ImageLabel(folders[0], "folder", 1.0, True),) if folders else ()

    def _texts(self, row: Mapping[str, Any], column: str | None) -> tuple[str, ...]:
        try:
            return parse_captions(value_of(row, column))
        except ValueError:
            self._left_out[f"have no text in '{column}'"] += 1
            return ()

    def _unlabelled(self, features: Iterable[str]) -> InputError:
        return InputError(
            "E106",
            "No label information: no column with labels or captions.",
            why=f"Found the columns {', '.join(features)}.",
            fix="Name the columns with --labels-column or --caption-column.",
        )


def _keep_encoded(rows: Any, features: Mapping[str, Any], columns: ChosenColumns) -> Any:
    import datasets

    picture = columns.picture
    kept = rows.select_columns(columns.top_level())
    is_picture = isinstance(features[picture], datasets.Image)
    return kept.cast_column(picture, datasets.Image(decode=False)) if is_picture else kept
