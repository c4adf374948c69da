"""Graph neural networks that score configurations: higher = faster."""

from tpugraphs_rank.models.build import build_model
from tpugraphs_rank.models.build import Model
from tpugraphs_rank.models.ensemble import Members
from tpugraphs_rank.models.ranker import Ranker
