"""Metrics of a ranking, exactly as published. No module here needs TensorFlow.

Every metric of one graph takes (runtimes, scores) in this order: runtimes (c,) positive, scores
(c,) higher = predicted faster. Higher agreement gives a higher value. For a graph with nothing to
rank (one configuration, or equal runtimes), `opa` and `kendall_tau` are NaN. Means skip such graphs
and count them.

No metric depends on the order in which configurations are stored: where scores tie, the slowdowns
and gains are expectations over all orders of the tied ones. The competition's score breaks ties by
index, as its rules say.

`register("ndcg", ndcg, higher_is_better=True)` makes a function available as the setting
`validation_metric=ndcg`.
"""

from tpugraphs_rank.metrics.aggregate import GraphMean
from tpugraphs_rank.metrics.aggregate import mean_by_group
from tpugraphs_rank.metrics.aggregate import mean_over_graphs
from tpugraphs_rank.metrics.aggregate import mean_over_programs
from tpugraphs_rank.metrics.aggregate import program_of
from tpugraphs_rank.metrics.competition import COMPETITION_COLLECTIONS
from tpugraphs_rank.metrics.competition import competition_score
from tpugraphs_rank.metrics.competition import CompetitionScore
from tpugraphs_rank.metrics.competition import layout_competition_score
from tpugraphs_rank.metrics.competition import tile_competition_score
from tpugraphs_rank.metrics.gains import gain_share
from tpugraphs_rank.metrics.gains import LEAST_GAIN
from tpugraphs_rank.metrics.gains import measured_until_good
from tpugraphs_rank.metrics.gains import WITHIN
from tpugraphs_rank.metrics.inputs import ranking
from tpugraphs_rank.metrics.inputs import scores_from_ranking
from tpugraphs_rank.metrics.pairs import is_degenerate
from tpugraphs_rank.metrics.pairs import kendall_tau
from tpugraphs_rank.metrics.pairs import opa
from tpugraphs_rank.metrics.pairs import opa_pairs
from tpugraphs_rank.metrics.pairs import TAU_VARIANTS
from tpugraphs_rank.metrics.regression import mean_absolute_error
from tpugraphs_rank.metrics.regression import pearson
from tpugraphs_rank.metrics.regression import spearman
from tpugraphs_rank.metrics.slowdown import slowdown_across_passes
from tpugraphs_rank.metrics.slowdown import slowdown_curve
from tpugraphs_rank.metrics.slowdown import topk_slowdown
from tpugraphs_rank.metrics.ties import mean_ranks
from tpugraphs_rank.metrics.validation import Metric
from tpugraphs_rank.metrics.validation import register

__all__ = [
    "COMPETITION_COLLECTIONS",
    "CompetitionScore",
    "GraphMean",
    "LEAST_GAIN",
    "Metric",
    "TAU_VARIANTS",
    "WITHIN",
    "competition_score",
    "gain_share",
    "is_degenerate",
    "kendall_tau",
    "layout_competition_score",
    "mean_absolute_error",
    "mean_by_group",
    "mean_over_graphs",
    "mean_over_programs",
    "mean_ranks",
    "measured_until_good",
    "opa",
    "opa_pairs",
    "pearson",
    "program_of",
    "ranking",
    "register",
    "scores_from_ranking",
    "slowdown_across_passes",
    "slowdown_curve",
    "spearman",
    "tile_competition_score",
    "topk_slowdown",
]
