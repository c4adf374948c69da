"""Training steps and scoring: plain against exact against distinct states, interleaved."""

import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import tensorflow as tf

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

Times = Dict[str, Dict[str, float]]


def interleaved(ways: Mapping[str, Callable[[], Any]], repeats: int) -> Times:
  """For each way the medians of CPU and wall seconds, the ways taken in turn."""
  cpu: Dict[str, List[float]] = {name: [] for name in ways}
  wall: Dict[str, List[float]] = {name: [] for name in ways}
  for turn in range(repeats + 1):
    for name, way in ways.items():
      before = time.process_time(), time.perf_counter()
      way()
      if turn:  # The first traces.
        cpu[name].append(time.process_time() - before[0])
        wall[name].append(time.perf_counter() - before[1])
  return {name: {"cpu_s": float(np.median(cpu[name])), "wall_s": float(np.median(wall[name]))}
          for name in ways}


class Bench:
  """A model and a program to measure them on."""

  def __init__(self, graph: graphs.LayoutGraph, width: int = 32, depth: int = 2, configs: int = 16):
    self.graph = graph
    self.config = config_lib.override(run_config.RunConfig(), {
        "model.hidden_width": width, "model.num_convolutions": depth,
        "batch.max_configs": configs, "batch.batch_size": 1})
    self.normalizer = normalize.Normalizer.fit([graph])
    self.model = models.build_model("layout", self.config)
    self.prepared = batches.prepare(splits.Program(graph), self.normalizer)
    self._plain = batches.training_batch(
        [self.prepared], self.config.batch, np.random.default_rng(0))
    self._exact = self.model.arrange(self._plain)
    self.model(pipeline.to_step(self._exact)["graph"])

  @property
  def shares(self) -> List[float]:
    """Shares of the nodes that depend on the configuration after 0, 1, ... convolutions."""
    return [round(float(rows) / self.graph.num_nodes, 4) for rows in self._exact["rows"]]

  def compare(self, repeats: int) -> Times:
    """One training step, and scoring one list.

    `train_exact` and `score_exact` do everything; `score_exact_next` is a list of a program whose
    configuration-free part is there, as for every list but the first; `batch` makes a batch.
    """
    ways: Dict[str, Callable[[], Any]] = {}
    for name, batch in (("plain", self._plain), ("exact", self._exact)):
      arrays, spec = tensors(batch)
      stepper = steps.Stepper(self.model, self.config, 1000, spec)
      score = tf.function(lambda arrays: self.model(pipeline.to_step(arrays)["graph"]),
                          input_signature=[spec], autograph=False)
      ways[f"train_{name}"] = lambda stepper=stepper, arrays=arrays: stepper.train(arrays)
      ways[f"score_{name}"] = lambda score=score, arrays=arrays: score(arrays)
    streamer = streaming.Streamer(self.model, 2 ** 30, False)
    graph = {key: value for key, value in self._exact.items() if not key.startswith("label_")}
    kept = streamer.call("shared_part", {
        key: value for key, value in graph.items() if key != "configs" and "mask" not in key})
    ways["score_exact_next"] = lambda: streamer.call("own_part", graph, kept)
    rng = np.random.default_rng(0)
    ways["batch"] = lambda: self.model.arrange(
        batches.training_batch([self.prepared], self.config.batch, rng))
    return interleaved(ways, repeats)

  def stream(self, layouts: np.ndarray, repeats: int, ways: Tuple[str, ...]) -> Times:
    """Scoring many configurations: "exact", by "distinct" states, or whichever is "chosen"."""
    budget = self.config.batch.scoring_megabytes * 2 ** 20
    graph = graphs.with_configs(self.graph, layouts)
    prepared = batches.prepare(splits.Program(graph), self.normalizer)
    chosen: Dict[str, Optional[bool]] = {"exact": False, "distinct": True, "chosen": None}
    streamers = {way: streaming.Streamer(
        self.model, budget, chosen[way]) for way in ways}
    return interleaved({way: lambda streamer=streamer: streamer(prepared)
                        for way, streamer in streamers.items()}, repeats)


def tensors(batch: batches.Batch) -> Tuple[Dict[str, tf.Tensor], Dict[str, tf.TensorSpec]]:
  """A batch as a step takes it, and its specification."""
  dataset = pipeline.dataset(lambda: iter([batch]))
  return next(iter(dataset)), dataset.element_spec


def ceilings(width: int, rows: int, repeats: int) -> Dict[str, float]:
  """What this machine reaches: the model's matrix product, and a copy in memory."""
  left = tf.random.normal([rows, width])
  right = tf.random.normal([width, width])
  source = np.ones(2 ** 25, np.float32)
  target = np.empty_like(source)
  product = tf.function(lambda: tf.matmul(left, right))
  times = interleaved({"product": product, "copy": lambda: np.copyto(target, source)}, repeats)
  return {"matmul_gflops": 2 * rows * width ** 2 / times["product"]["cpu_s"] / 1e9,
          "copy_gb_per_s": 2 * source.nbytes / times["copy"]["cpu_s"] / 1e9}


def exact_flops(shares: List[float], nodes: int, configs: int, width: int, depth: int) -> float:
  """Floating-point operations of the matrix products of exact scoring's convolutions."""
  states = sum(nodes * (share * configs + 1 - share) for share in shares[:depth])
  return states * 4 * 2 * width ** 2  # The MLP and three kernels.
