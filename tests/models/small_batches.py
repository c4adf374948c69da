"""Small models with random weights, and their scores computed eagerly."""

from collections.abc import Sequence

import numpy as np

from tests import synthetic
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.data import splits

MAKERS = {"tile": synthetic.tile_graph, "layout": synthetic.layout_graph}
SMALL = {"model.opcode_width": 3, "model.hidden_width": 5, "model.head_widths": [4],
         "model.attention_width": 3, "model.attention_reference": 4}


def settings(**changes) -> run_config.RunConfig:
  """A configuration of small sizes; `model_residual` is the setting model.residual."""
  return config_lib.override(run_config.RunConfig(), {
      **SMALL, **{name.replace("_", ".", 1): value for name, value in changes.items()}})


class Case:
  """A model whose variables are drawn at random, its normalizer and some graphs."""

  def __init__(self, kind: str, sizes: Sequence[int] = (6, 3, 8),
               configs: Sequence[int] = (7, 4, 9), members: Sequence[graphs.Graph] = (),
               seed: int = 0, **changes):
    """Makes graphs with these numbers of nodes and configurations, or uses `members`."""
    self.kind = kind
    self.config = settings(**changes)
    self.graphs = list(members) or [
        MAKERS[kind](10 * seed + i, num_nodes=n, num_configs=c, name=f"g{i}")
        for i, (n, c) in enumerate(zip(sizes, configs))]
    self.normalizer = normalize.Normalizer.fit(
        self.graphs, facts=targets.CPU if self.config.model.layout_costs != "none" else None)
    self.model = models.build_model(kind, self.config)
    batch, _ = next(batches.scoring_batches(
        [self.prepare(self.graphs[0])], 2, self.model.reference_size))
    self.model.create_variables(self.model.arrange(batch))
    rng = np.random.default_rng(seed)
    for variable in self.model.trainable_variables:
      variable.assign(rng.normal(0, 0.5, variable.shape))

  def prepare(self, graph: graphs.Graph, choice: np.ndarray | None = None, **options
              ) -> batches.PreparedGraph:
    return batches.prepare(splits.ProgramView(graph, choice), self.normalizer, **options)

  def prepared(self, **options) -> list[batches.PreparedGraph]:
    return [self.prepare(graph, **options) for graph in self.graphs]

  def scores(self, prepared: Sequence[batches.PreparedGraph], max_configs: int = 100,
             max_lists: int = 8) -> list[np.ndarray]:
    """Scores of the usable configurations of each graph."""
    parts: list[list[np.ndarray]] = [[] for _ in prepared]
    for batch, owners in batches.scoring_batches(
        prepared, max_configs, self.model.reference_size, max_lists):
      for row, (index, picked) in zip(self.forward(batch), owners):
        parts[index].append(row[:len(picked)])
    return [np.concatenate(rows) for rows in parts]

  def forward(self, batch: batches.Batch) -> np.ndarray:
    """Scores (B, C) of a batch, padding included."""
    return self.model(pipeline.to_step(self.model.arrange(batch))).numpy()


def close(actual, expected, digits: float = 1e-5) -> None:
  """Equal up to the float32 rounding of sums of the scores' magnitude."""
  scale = max(np.abs(expected).max(), 1.0)
  np.testing.assert_allclose(actual, expected, rtol=digits, atol=digits * scale)
