"""Readers of labelled picture collections."""

from retclip.corpora.catalog import CorpusOptions, corpus_names, is_source, open_corpus
from retclip.corpora.description import CorpusDescription, describe
from retclip.corpora.table import TableColumns

__all__ = ["CorpusDescription", "CorpusOptions", "TableColumns", "corpus_names", "describe", "is_source", "open_corpus"]
