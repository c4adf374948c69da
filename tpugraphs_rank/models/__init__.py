"""Graph neural networks that score configurations: higher = faster."""

from tpugraphs_rank.models.ranker import Ranker
from tpugraphs_rank.models.ranker import build_model
