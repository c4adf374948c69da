"""Training steps and scoring: plain against exact against distinct states, interleaved."""

from collections.abc import Callable, Mapping, Sequence
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
  """A streamer that counts.

  Attributes:
    cpu_s: CPU seconds of the last program.
    called_s: those of them that the model took for its configurations.
    states: distinct states that it computed at each level.
    told: groups of nodes times configurations at which states were told apart.
  """

  def __call__(self, prepared):
    self.called_s, self.states, self.told = 0.0, 0, 0
    started = time.process_time()
    scores = super().__call__(prepared)
    self.cpu_s = time.process_time() - started
    return scores

  def call(self, name, *arguments):
    started = time.process_time()
    found = super().call(name, *arguments)
    if name != "config_independent_part":
      self.called_s += time.process_time() - started
    return found

  def _deduplicate(self, index, program, start, size):
    levels, layouts = super()._deduplicate(index, program, start, size)
    self.states = self.states + np.array([level.offset[-1] for level in levels])
    self.told += layouts.shape[1] * sum(index.groups)
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
    """One training step, and scoring one list.

    `train_exact` and `score_exact` do everything; `score_exact_next` is a list of a program whose
    configuration-free part is there, as for every list but the first; `score_exact_program` is
    `PROGRAM_LISTS` lists of a program, the first and the others; `batch` makes a batch.
    """
    ways: dict[str, Callable[[], Any]] = {}
    for name, batch in (("plain", self._plain), ("exact", self._exact)):
      arrays, spec = tensors(batch)
      stepper = steps.Stepper(self.model, self.config, 1000, spec)
      score = tf.function(lambda arrays: self.model(self.model.select_inputs(arrays)),
                          input_signature=[spec], autograph=False)
      ways[f"train_{name}"] = lambda stepper=stepper, arrays=arrays: stepper.train(arrays)
      ways[f"score_{name}"] = lambda score=score, arrays=arrays: score(arrays)
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
    """Scoring many configurations: "exact", by "distinct" states, or whichever is "chosen"."""
    budget = self.config.batch.scoring_megabytes * 2 ** 20
    graph = graphs.with_configs(self.graph, layouts)
    prepared = batches.prepare(splits.ProgramView(graph), self.normalizer)
    chosen: dict[str, bool | None] = {"exact": False, "distinct": True, "chosen": None}
    streamers = {way: Counting(
        self.model, budget, chosen[way]) for way in ways}
    return timing.interleaved({way: lambda streamer=streamer: streamer(prepared)
                               for way, streamer in streamers.items()}, repeats), streamers


def _without_configs(arrays: Mapping[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in arrays.items() if key != "configs" and "mask" not in key}


def _score_program(streamer: streaming.Streamer, arrays: Mapping[str, Any]) -> None:
  kept = streamer.call("config_independent_part", _without_configs(arrays))
  for _ in range(PROGRAM_LISTS):
    streamer.call("config_dependent_part", arrays, kept)


def costs(rows: Sequence[int], count: int, exact: Counting, distinct: Counting
          ) -> dict[str, float]:
  """What `streaming` takes telling apart and distinct states to cost, in states of `config_dependent_part`.

  Args:
    rows: nodes that depend on the configuration at each level.
    count: configurations that both have scored.
    exact: without distinct states.
    distinct: with them.
  """
  inside = lambda sizes: 2 * sum(sizes) - sizes[0] - sizes[-1]
  own = exact.called_s / (count * inside(rows))
  return {"cost_of_telling": (distinct.cpu_s - distinct.called_s) / distinct.told / own,
          "cost_of_distinct": distinct.called_s / inside(distinct.states) / own}


def tensors(batch: batches.Batch) -> tuple[dict[str, tf.Tensor], dict[str, tf.TensorSpec]]:
  """A batch as a step takes it, and its specification."""
  dataset = pipeline.dataset(lambda: iter([batch]))
  return next(iter(dataset)), dataset.element_spec
