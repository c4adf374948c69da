"""Reading programs and their measured configurations.

Nothing here except `tpugraphs_rank.data.pipeline` needs TensorFlow.
"""

from tpugraphs_rank.data.collections import load_collection
from tpugraphs_rank.data.graphs import Graph
from tpugraphs_rank.data.graphs import LayoutGraph
from tpugraphs_rank.data.graphs import TileGraph
from tpugraphs_rank.data.npz import load_graph
from tpugraphs_rank.data.npz import save_graph
from tpugraphs_rank.data.registry import Collection
from tpugraphs_rank.data.registry import register_collection
