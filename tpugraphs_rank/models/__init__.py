"""Models that score configurations: higher = faster. `models.interface` states their contract.

`register("my_gnn", MyGnn)` makes a model available as the setting `model=my_gnn`.
"""

from tpugraphs_rank import registries
from tpugraphs_rank.models import node_layers
from tpugraphs_rank.models import poolings
from tpugraphs_rank.models.build import build_model
from tpugraphs_rank.models.ensemble import Ensemble
from tpugraphs_rank.models.inputs import add_configs
from tpugraphs_rank.models.inputs import INPUTS
from tpugraphs_rank.models.inputs import neighbour_mean
from tpugraphs_rank.models.interface import DistinctStates
from tpugraphs_rank.models.interface import Partitioned
from tpugraphs_rank.models.interface import RankingModel
from tpugraphs_rank.models.interface import SegmentTraining
from tpugraphs_rank.models.ranker import Ranker

register = registries.MODELS.register
names = registries.MODELS.names

__all__ = [
    "DistinctStates",
    "Ensemble",
    "INPUTS",
    "Partitioned",
    "Ranker",
    "RankingModel",
    "SegmentTraining",
    "add_configs",
    "build_model",
    "names",
    "neighbour_mean",
    "node_layers",
    "poolings",
    "register",
]
