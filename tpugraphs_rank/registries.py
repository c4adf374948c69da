"""Models, losses, metrics, poolings, node layers and candidate generators that settings name.

Each package offers the `register` of its registry: `tgr.models.register("my_gnn", MyGnn)`. The
built-in entries are listed here as references, so that settings can be checked and described
without importing TensorFlow. docs/extending.md shows how to add one of each.
"""

from typing import Any

from tpugraphs_rank.plugins import Registry

_RANKING = "tpugraphs_rank.losses.ranking"
_POOLINGS = "tpugraphs_rank.models.poolings"
_NODE_LAYERS = "tpugraphs_rank.models.node_layers"
_METRICS = "tpugraphs_rank.metrics.validation"

# Classes of `models.interface.RankingModel`, called with (kind, model settings, l2).
MODELS: Registry[Any] = Registry("model", {
    "residual_gnn": "tpugraphs_rank.models.ranker:Ranker",
    "attention_gnn": "tpugraphs_rank.models.ranker:Ranker",
})

# Functions of (step, scores [B, C]) that return the loss of each list, (B,).
LOSSES: Registry[Any] = Registry("loss", {
    "list_mle": f"{_RANKING}:list_mle",
    "pairwise_logistic": f"{_RANKING}:pairwise_logistic",
    "pairwise_hinge": f"{_RANKING}:pairwise_hinge",
    "softmax": f"{_RANKING}:softmax",
    "approx_ndcg": f"{_RANKING}:approx_ndcg",
    "mse": f"{_RANKING}:mean_squared_error",
})

# Instances of `metrics.validation.Metric`.
VALIDATION_METRICS: Registry[Any] = Registry("validation metric", {
    "kendall_tau": f"{_METRICS}:KENDALL_TAU",
    "opa": f"{_METRICS}:OPA",
    "top1_slowdown": f"{_METRICS}:TOP1_SLOWDOWN",
    "top5_slowdown": f"{_METRICS}:TOP5_SLOWDOWN",
    "top10_slowdown": f"{_METRICS}:TOP10_SLOWDOWN",
})

# Functions of (states [N, T, h], graph of each node (N,), number of graphs B): [B, T, h].
POOLINGS: Registry[Any] = Registry("pooling", {
    "mean": f"{_POOLINGS}:mean",
    "sum": f"{_POOLINGS}:total",
    "max": f"{_POOLINGS}:maximum",
})

# Classes of `models.node_layers.NodeLayer`, called with (model settings, width, l2, name).
NODE_LAYERS: Registry[Any] = Registry("node layer", {
    "squeeze_excitation": f"{_NODE_LAYERS}:SqueezeExcitation",
    "instance_norm": f"{_NODE_LAYERS}:InstanceNorm",
    "node_attention": f"{_NODE_LAYERS}:NodeAttention",
})

# Functions of `candidates.generators.Request` that return `candidates.candidate_set.Candidates`.
CANDIDATES: Registry[Any] = Registry("candidate generator", {
    "auto": "tpugraphs_rank.candidates.generators:auto",
    "runs": "tpugraphs_rank.candidates.generators:runs",
})

# Functions of (content of a file, its name in messages) that return a serialised HloModuleProto.
CONVERTERS: Registry[Any] = Registry("program converter", {
    "stablehlo": "tpugraphs_rank.collect.stablehlo:to_hlo",
})
