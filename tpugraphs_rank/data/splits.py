"""The programs and configurations that train, validate and test, as a run's configuration says."""

import dataclasses
import logging
from typing import List, Optional
import zlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import sampling

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Program:
  """A graph and those of its configurations that one side of a split may use.

  Attributes:
    graph: the graph.
    choice: (c',) int64 configuration indices; None: all.
  """

  graph: graphs.Graph
  choice: Optional[np.ndarray] = None

  @property
  def indices(self) -> np.ndarray:
    """(c',) int64: the configurations that may be used, also where that is all of them."""
    return np.arange(self.graph.num_configs) if self.choice is None else self.choice


def load_programs(config: run_config.DataConfig, split: str, seed: int = 0) -> List[Program]:
  """Reads the programs of a split into memory.

  With `split_by="configuration"` the programs are the same in all splits ("all", or the training
  split of a divided collection), and the splits differ in their distinct configurations.

  Args:
    config: which collection, and how it is divided.
    split: "train", "valid" or "test".
    seed: divides configurations, and draws programs where `max_graphs` limits them.

  Raises:
    DataError: a program has no runtimes, or none is left; and as `load_collection`.
  """
  collection = registry.get_collection(config.collection)
  by_configuration = config.split_by == "configuration"
  if by_configuration:
    if split not in registry.SPLITS:
      raise errors.UnknownNameError(
          f"no split {split!r}; expected one of: {', '.join(registry.SPLITS)}")
    stored = registry.WHOLE if registry.WHOLE in collection.splits else "train"
  else:
    stored = split
    if registry.WHOLE in collection.splits and split != registry.WHOLE:
      raise errors.ConfigError(
          f"collection {collection.name} is not divided by program; train with "
          "--split_by=configuration, or divide it with `python -m experiments.make_collection`")
  source = collections.load_collection(collection, stored, config.data_root)
  # Three sides, each with a configuration.
  least = max(config.min_configs, len(registry.SPLITS)) if by_configuration else config.min_configs
  programs, small = [], []
  for path, graph in zip(source.paths, source):
    keys = graph.config_keys()
    if len(np.unique(keys)) < least:
      small.append(graph.name)
      continue
    if not graph.has_runtimes:
      raise errors.DataError(
          f"{path}: config_runtime is all zero: this split holds no measurements; train and "
          "evaluate on splits that do (the public test splits have none)")
    choice = None
    if by_configuration:
      sides = sampling.split_configs(keys, config.train_fraction, config.valid_fraction,
                                     [seed, zlib.crc32(graph.name.encode())])
      choice = sides[registry.SPLITS.index(split)]
    programs.append(Program(graph, choice))
  if small:
    _logger.info("%s %s: left out %d of %d programs with fewer than %d distinct configurations: %s",
                 collection.name, split, len(small), len(source), least,
                 ", ".join(small[:5]) + (", ..." if len(small) > 5 else ""))
  if not programs:
    raise errors.DataError(
        f"{collection.name} {split}: no program has {least} distinct configurations "
        f"or more ({len(source)} programs read); lower --min_configs")
  if split == "train" and config.max_graphs is not None and config.max_graphs < len(programs):
    drawn = np.random.default_rng([seed, 1]).permutation(len(programs))[:config.max_graphs]
    programs = [programs[i] for i in np.sort(drawn)]
    _logger.info("%s train: drew %d programs with seed %d", collection.name, len(programs), seed)
  return programs
