"""Readers of labelled picture collections."""

from retclip.corpora.catalog import CorpusOptions, corpus_names, is_source, open_corpus
from retclip.corpora.description import CorpusDescription, describe
from retclip.corpora.mined import MinedCorpus
from retclip.corpora.openimages_fetch import FetchReport, FetchRequest, fetch_images
from retclip.corpora.table import TableColumns

__all__ = [
    "CorpusDescription", "CorpusOptions", "FetchReport", "FetchRequest", "MinedCorpus", "TableColumns", "corpus_names",
    "describe", "fetch_images", "is_source", "open_corpus",
]  # fmt: skip
