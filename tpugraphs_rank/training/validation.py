"""Ranking metrics on the validation split, for early stopping."""

from collections.abc import Sequence

import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank.data import batches

# Whether a larger value is better.
HIGHER_IS_BETTER = {"kendall_tau": True, "opa": True, "top1_slowdown": False,
                    "top5_slowdown": False, "top10_slowdown": False}


def ranking_metrics(prepared: Sequence[batches.PreparedGraph], scores: Sequence[np.ndarray]
                    ) -> dict[str, float]:
  """Means over graphs; graphs without a pair of unequal runtimes are left out of OPA and tau."""
  columns: dict[str, list] = {name: [] for name in HIGHER_IS_BETTER}
  for member, score in zip(prepared, scores):
    runtimes = member.runtimes[member.choice]
    columns["kendall_tau"].append(metrics.kendall_tau(runtimes, score))
    columns["opa"].append(metrics.opa(runtimes, score))
    for k in (1, 5, 10):
      columns[f"top{k}_slowdown"].append(metrics.topk_slowdown(runtimes, score, k))
  return {name: float(np.mean(finite)) if (finite := [v for v in values if np.isfinite(v)])
          else 0.0 for name, values in columns.items()}
