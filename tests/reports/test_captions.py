"""Words of the reports."""

import string

from hypothesis import given
from hypothesis import strategies as st

from retclip.reports.captions import caption, database_names, one_line, percent


@given(st.text(max_size=300), st.integers(5, 60))
def test_a_line_is_printable_and_bounded(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert all(c.isprintable() or c in "\u200c\u200d" for c in line)
    assert line == line.strip()


@given(st.text(string.ascii_letters + string.digits, max_size=50))
def test_plain_words_stay_as_they_are(text):
    assert one_line(text) == text


def test_terminal_and_bidi_controls_are_dropped():
    assert one_line("a\x1b[31mred\u202eback\n\tb") == "a[31mredback b"


def test_shares_read_as_people_write_them():
    assert percent(0.412, 1) == "41.2 %"
    assert percent(0.0) == "0 %"
    assert percent(0.0004) == "<1 %"
    assert percent(0.0004, 1) == "<0.1 %"
    assert percent(1.0) == "100 %"


def test_caption_cuts_the_label_but_never_the_score(samples):
    result = samples.make_result(samples.make_blocks(20, 20, 1), samples.make_vocabulary(["x" * 500]))
    text = caption(result.explanations[0])
    assert text.startswith("xxx")
    assert text.endswith(f"… {result.explanations[0].segment.score * 100:.0f}%")
    assert len(text) < 40


def test_database_names_come_from_the_run(samples):
    assert database_names(samples.RUN) == ("street",)
    assert database_names({}) == ()
