"""The table on the terminal."""

import dataclasses
import io

import numpy as np
from rich.cells import cell_len
from rich.console import Console

from retclip.core.results import LabelMatch
from retclip.reports.explain import hints, print_explanations, summary


def printed(result, **options):
    stream = io.StringIO()
    print_explanations(result, Console(file=stream, **options))
    return stream.getvalue()


def with_match(result, match, neighbors=()):
    explained = tuple(dataclasses.replace(e, match=match, neighbors=neighbors) for e in result.explanations)
    return dataclasses.replace(result, explanations=explained)


def test_plain_output_has_one_unwrapped_line_per_segment(samples):
    result = samples.make_result(samples.make_blocks(40, 40, 6, seed=2), samples.make_vocabulary(["pier", "w" * 80]))
    lines = printed(result, width=40).splitlines()
    assert lines[0].startswith("street.jpg  ")
    assert lines[1].split()[:5] == ["id", "label", "kind", "area", "score"]
    rows = lines[2 : 2 + len(result.explanations)]
    shown = [int(row.split()[0]) for row in rows]
    areas = {e.segment.id: e.segment.area for e in result.explanations}
    assert [areas[i] for i in shown] == sorted(areas.values(), reverse=True)
    assert all("\x1b" not in line for line in lines)


def test_a_terminal_gets_colours_and_no_foreign_controls(samples):
    result = samples.make_result(
        samples.make_blocks(20, 20, 3), samples.make_vocabulary(["[red]x[/red]\x1b]0;evil\x07"])
    )
    text = printed(result, force_terminal=True, width=200, color_system="standard")
    assert "\x1b[" in text
    assert "\x1b]0;" not in text
    assert "\x07" not in text
    assert "[red]x[/red]]0;evil" in text


def test_a_missing_class_gets_a_command_to_copy(samples):
    result = samples.make_result(np.ones((4, 4), dtype=np.int32), samples.make_vocabulary(["pallet jack"]))
    result = with_match(result, LabelMatch("pallet jack", (), "none", 0.0))
    assert hints(result) == [
        "'pallet jack' is not in db 'street'.\n"
        "      retclip index add-classes --db street --classes 'pallet jack' --images DIR"
    ]
    assert "(no 'pallet jack' exemplars; see hint)" in printed(result)
    nameless = dataclasses.replace(result, run={})
    assert hints(nameless)[0].startswith("'pallet jack' is not in the database.")


def test_a_substitute_is_named(samples):
    result = samples.make_result(np.ones((4, 4), dtype=np.int32), samples.make_vocabulary(["kayak"]))
    result = with_match(result, LabelMatch("kayak", ("boat",), "text", 0.96))
    assert hints(result) == ["'kayak' is not in db 'street'; 'boat' answered for it (text similarity 0.96)."]


def test_summary_counts_the_deciders(samples):
    empty = samples.make_result(np.zeros((4, 4), dtype=np.int32), samples.make_vocabulary(["a"]))
    assert summary(empty) == "street.jpg  0 segments in 1.2 s"
    assert printed(empty).splitlines() == ["street.jpg  0 segments in 1.2 s"]
    one = samples.make_result(np.ones((4, 4), dtype=np.int32), samples.make_vocabulary(["a"]))
    one = dataclasses.replace(one, explanations=(dataclasses.replace(one.explanations[0], decided_by="clip"),))
    assert summary(one) == "street.jpg  1 segment in 1.2 s  (CLIP 1)"


def test_columns_stand_under_their_heads_also_beside_wide_characters(samples):
    result = samples.make_result(
        samples.make_blocks(40, 40, 6, seed=2), samples.make_vocabulary(["東京タワー", "pier"])
    )
    lines = printed(result, width=200).splitlines()[1 : 2 + len(result.explanations)]
    heads = {
        cell_len(line[: line.index(word)]) for line in lines for word in ("kind", "thing", "stuff") if word in line
    }
    assert len(heads) == 1
