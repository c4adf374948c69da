"""Candidate configurations of your own program, and the best of them as raw data.

`register("my_search", my_search)` adds a generator, which `tpugraphs-rank rank --candidates
my_search` then uses; see `candidates.generators`. No module here needs TensorFlow.
"""

from tpugraphs_rank import registries

register = registries.CANDIDATES.register
get = registries.CANDIDATES.get
names = registries.CANDIDATES.names

__all__ = [
    "get",
    "names",
    "register",
]
