"""Escaping."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from retclip.reports.markup import joined, tag


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data):
        self.text += data


# A null or carriage return is changed by every HTML parser; reports drop both before they come here.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")))


@given(TEXT, TEXT)
def test_text_and_attributes_come_back_as_they_were(text, value):
    reader = Reader()
    reader.feed(tag("p", text, title=value))
    reader.close()
    assert reader.tags == [("p", {"title": value})]
    assert reader.text == text


def test_elements_are_not_escaped_twice():
    assert tag("p", tag("b", "<"), "&") == "<p><b>&lt;</b>&amp;</p>"
    assert joined("<", tag("img", alt="", hidden=True, checked=False)) == '&lt;<img alt="" hidden>'
    assert tag("label", "x", for_="a", data_row=3) == '<label for="a" data-row="3">x</label>'
