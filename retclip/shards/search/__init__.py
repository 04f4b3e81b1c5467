"""Search of one snapshot: exact over the ranges of the asked classes, by the backend a planner picks.

A backend finds candidates with scores of known error; `measure` has the last word in float64. torch and faiss are
imported inside functions, so that `retclip db info` answers at once.
"""

from retclip.shards.search.indexing import Indexed, write_indexes
from retclip.shards.search.planner import Plan
from retclip.shards.search.request import Request
from retclip.shards.search.searcher import Searcher

__all__ = ["Indexed", "Plan", "Request", "Searcher", "write_indexes"]
