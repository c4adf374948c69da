"""Training steps and scoring: plain, exact and distinct-state execution, interleaved."""

from collections.abc import Callable, Mapping, Sequence
import functools
import time
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.benchmarks import timing
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import steps
from tpugraphs_rank.training import streaming

Times = timing.Times
PROGRAM_LISTS = 16


class Counting(streaming.Streamer):
  """A streamer that counts its work.

  Attributes:
    cpu_s: CPU seconds of the last program.
    called_s: the part of them that the model spent on its configurations.
    states: number of distinct states computed at each level.
    deduplicated: number of (group of nodes, configuration) pairs whose states were deduplicated.
  """

  def __call__(self, prepared):
    self.called_s, self.states, self.deduplicated = 0.0, 0, 0
    started = time.process_time()
    scores = super().__call__(prepared)
    self.cpu_s = time.process_time() - started
    return scores

  def call(self, name, *arguments):
    started = time.process_time()
    result = super().call(name, *arguments)
    if name != "config_independent_part":
      self.called_s += time.process_time() - started
    return result

  def _deduplicate(self, index, program, start, size):
    levels, layouts = super()._deduplicate(index, program, start, size)
    self.states = self.states + np.array([level.offset[-1] for level in levels])
    self.deduplicated += layouts.shape[1] * sum(index.groups)
    return levels, layouts


class Bench:
  """A model and a program to measure them on."""

  def __init__(self, graph: graphs.LayoutGraph, width: int = 32, depth: int = 2, configs: int = 16):
    self.graph = graph
    self.config = config_lib.override(run_config.RunConfig(), {
        "model.hidden_width": width, "model.num_convolutions": depth,
        "batch.max_configs": configs, "batch.batch_size": 1})
    self.normalizer = normalize.Normalizer.fit([graph])
    self.model = models.build_model("layout", self.config)
    self.prepared = batches.prepare(splits.ProgramView(graph), self.normalizer)
    self._plain = batches.training_batch(
        [self.prepared], self.config.batch, np.random.default_rng(0))
    self._exact = self.model.arrange(self._plain)
    self.model.create_variables(self._exact)

  @property
  def rows(self) -> list[int]:
    """Nodes that depend on the configuration after 0, 1, ... convolutions."""
    return self._exact["rows"].tolist()

  @property
  def shares(self) -> list[float]:
    """Shares of the nodes that depend on the configuration after 0, 1, ... convolutions."""
    return [round(rows / self.graph.num_nodes, 4) for rows in self.rows]

  def compare(self, repeats: int) -> Times:
    """Times one training step, and the scoring of one list.

    `train_exact` and `score_exact` compute everything. `score_exact_next` is a further list of a
    program, whose configuration-independent part is already computed. `score_exact_program` is
    `PROGRAM_LISTS` lists of a program, the first and further ones. `batch` assembles a batch.
    """
    ways: dict[str, Callable[[], Any]] = {}
    for name, batch in (("plain", self._plain), ("exact", self._exact)):
      arrays, spec = tensors(batch)
      stepper = steps.Stepper(self.model, self.config, 1000, spec)
      score = tf.function(lambda arrays: self.model(self.model.select_inputs(arrays)),
                          input_signature=[spec], autograph=False)
      ways[f"train_{name}"] = functools.partial(stepper.train, arrays)
      ways[f"score_{name}"] = functools.partial(score, arrays)
    streamer = streaming.Streamer(self.model, 2 ** 30, False)
    graph = {key: tf.convert_to_tensor(value) for key, value in self._exact.items()
             if not key.startswith("label_")}
    kept = streamer.call("config_independent_part", _without_configs(graph))
    ways["score_exact_next"] = lambda: streamer.call("config_dependent_part", graph, kept)
    ways["score_exact_program"] = lambda: _score_program(streamer, graph)
    rng = np.random.default_rng(0)
    ways["batch"] = lambda: self.model.arrange(
        batches.training_batch([self.prepared], self.config.batch, rng))
    return timing.interleaved(ways, repeats)

  def stream(self, layouts: np.ndarray, repeats: int, ways: tuple[str, ...]
             ) -> tuple[Times, dict[str, Counting]]:
    """Scores many configurations: "exact", with "distinct" states, or with the "chosen" method."""
    budget = self.config.batch.scoring_megabytes * 2 ** 20
    graph = graphs.with_configs(self.graph, layouts)
    prepared = batches.prepare(splits.ProgramView(graph), self.normalizer)
    chosen: dict[str, bool | None] = {"exact": False, "distinct": True, "chosen": None}
    streamers = {way: Counting(
        self.model, budget, chosen[way]) for way in ways}
    return timing.interleaved({way: functools.partial(streamer, prepared)
                               for way, streamer in streamers.items()}, repeats), streamers


def _without_configs(arrays: Mapping[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in arrays.items() if key != "configs" and "mask" not in key}


def _score_program(streamer: streaming.Streamer, arrays: Mapping[str, Any]) -> None:
  kept = streamer.call("config_independent_part", _without_configs(arrays))
  for _ in range(PROGRAM_LISTS):
    streamer.call("config_dependent_part", arrays, kept)


def costs(rows: Sequence[int], count: int, exact: Counting, distinct: Counting
          ) -> dict[str, float]:
  """The costs of deduplication and of distinct states, in units of the cost of an exact state.

  Args:
    rows: number of nodes that depend on the configuration at each level.
    count: number of configurations that both streamers scored.
    exact: streamer without distinct states.
    distinct: streamer with distinct states.
  """
  inside = lambda sizes: 2 * sum(sizes) - sizes[0] - sizes[-1]
  exact_state = exact.called_s / (count * inside(rows))
  return {"cost_of_telling": ((distinct.cpu_s - distinct.called_s) / distinct.deduplicated
                              / exact_state),
          "cost_of_distinct": distinct.called_s / inside(distinct.states) / exact_state}


def tensors(batch: batches.Batch) -> tuple[dict[str, tf.Tensor], dict[str, tf.TensorSpec]]:
  """A batch as the input of a step, and its specification."""
  dataset = pipeline.dataset(lambda: iter([batch]))
  return next(iter(dataset)), dataset.element_spec
