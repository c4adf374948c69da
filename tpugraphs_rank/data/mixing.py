"""Synthetic programs beside the real ones in training: which take part, and where in a step.

Each step has a fixed number of synthetic lists, the others are real. Both sides go round their
programs in one fresh order after the other, so that no program is drawn more than once more often
than another.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import logging
from typing import AbstractSet

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.data import twins

_logger = logging.getLogger(__name__)

# What tells the orders of the two sides apart. None is 0, which NumPy cannot tell from no seed.
_REAL, _SYNTHETIC, _SHUFFLED = 1, 2, 3


def synthetic_lists(config: run_config.RunConfig) -> int:
  """Synthetic lists of each step: max(round(synthetic_share * batch_size), 1), or none."""
  if config.augment.synthetic is None:
    return 0
  return max(round(config.augment.synthetic_share * config.batch.batch_size), 1)


def check(config: run_config.RunConfig) -> None:
  """Raises ConfigError where a share of the lists is to be real and none is."""
  count, size = synthetic_lists(config), config.batch.batch_size
  if count == size and config.augment.synthetic_share < 1:
    raise errors.ConfigError(
        f"augment.synthetic_share {config.augment.synthetic_share} of {size} lists a step leaves "
        "no real list; raise --batch_size, lower --synthetic_share, or ask for --synthetic_share=1")


def trained_on(config: run_config.RunConfig, real: Sequence[splits.ProgramView],
               synthetic: Sequence[splits.ProgramView]) -> list[splits.ProgramView]:
  """The programs of which lists are drawn: features are scaled by these."""
  without_real = synthetic and synthetic_lists(config) == config.batch.batch_size
  return [*(() if without_real else real), *synthetic]


# ---- which synthetic programs train --------------------------------------------------------------


def training_split(collection: registry.Collection, source: registry.Collection,
                   any_target: bool = False) -> str:
  """The split of a synthetic collection that trains beside the real one: train, or all.

  Args:
    collection: the real one.
    source: the synthetic one.
    any_target: whether its programs may have been measured on another machine.

  Raises:
    CompatibilityError: the collection is of another kind, target or HLO stage.
    ConfigError: it has no such split.
  """
  for key, mend in (("kind", "give synthetic programs whose configurations are of that kind"),
                    ("target", "measure the synthetic programs on the machine of the real ones, or "
                     "take their order for that of this machine: --synthetic_any_target"),
                    ("hlo_stage", "featurize both before, or both after, optimization")):
    ours, theirs = getattr(collection, key), getattr(source, key)
    if ours != theirs and not (any_target and key == "target"):
      raise errors.CompatibilityError(
          f"augment.synthetic: collection {source.name} has {key} {theirs!r}, {collection.name} "
          f"has {ours!r}; {mend}")
  split = next((name for name in ("train", registry.WHOLE) if name in source.splits), None)
  if split is None:
    raise errors.ConfigError(
        f"augment.synthetic: collection {source.name} has the splits {', '.join(source.splits)}; "
        "expected train, or all: the programs to mix into training")
  return split


def load_synthetic(config: run_config.RunConfig, collection: registry.Collection,
                   valid: Sequence[splits.ProgramView]) -> splits.Loaded:
  """Reads the synthetic programs that train.

  Args:
    config: the run's; `augment.synthetic` is not None.
    collection: the real one.
    valid: the real programs that validate.

  Returns:
    The programs, and what was counted; its `held_back` are those that were left out because
    validation or test hold them.

  Raises:
    CompatibilityError: the collection is of another kind, target, HLO stage or padding.
    DataError: none is left; and as `splits.load`.
    ConfigError: the collection has no split that could train.
  """
  augment, seed = config.augment, config.training.seed
  source = registry.get_collection(augment.synthetic)
  split = training_split(collection, source, augment.synthetic_any_target)
  data = dataclasses.replace(
      config.data, collection=augment.synthetic, split_by="program",
      max_graphs=augment.synthetic_graphs)
  loaded = splits.load(data, split, seed, config.batch.max_configs,
                       _held_back(config, collection, valid))
  ours, theirs = (found[0].graph.feature_padding for found in (valid, loaded.programs))
  if ours != theirs:
    raise errors.CompatibilityError(
        f"augment.synthetic: collection {source.name} has feature_padding {theirs}, "
        f"{collection.name} has {ours}; featurize the synthetic programs with --padding={ours}")
  if augment.synthetic_shuffled:
    rng = np.random.default_rng([seed, _SHUFFLED])
    return loaded._replace(programs=[_shuffled(program, rng) for program in loaded.programs])
  return loaded


def _shuffled(program: splits.ProgramView, rng: np.random.Generator) -> splits.ProgramView:
  """The program with its runtimes permuted among its usable configurations."""
  runtimes = program.runtimes.copy()
  runtimes[program.indices] = rng.permutation(runtimes[program.indices])
  return dataclasses.replace(program, merged=runtimes)


def _structure(graph: graphs.Graph) -> str:
  """Equal for graphs of the same opcodes and edges, whatever their shapes."""
  return twins.graph_hash(graph.node_opcode, graph.edge_index)


def _content(graph: graphs.Graph) -> str:
  """Equal for graphs of the same nodes, features included, and edges."""
  return twins.graph_hash(graph.node_opcode, graph.edge_index, graph.node_feat)


def _held_back(config: run_config.RunConfig, collection: registry.Collection,
               valid: Sequence[splits.ProgramView]) -> Callable[[graphs.Graph], bool]:
  """Says of a synthetic graph whether validation or test hold it; see `AugmentConfig`."""
  rule = config.augment.synthetic_held_back
  structures, contents = set(), set()
  for graph in (*(program.graph for program in valid), *_read(config, collection, "test")):
    structures.add(_structure(graph))
    contents.add(_content(graph))
  known: list[AbstractSet[str]] = []

  def is_held_back(graph: graphs.Graph) -> bool:
    if _content(graph) in contents:
      return True
    structure = _structure(graph)
    if rule == "content" or structure not in structures:
      return False
    if rule == "unseen" and config.data.split_by == "configuration":
      return False  # Training knows all programs; what is held back is configurations.
    if rule == "unseen":
      # All training programs, drawn or not: what counts as unseen is a matter of the collection.
      # Read where it is needed only, since a training split may be large.
      if not known:
        known.append({_structure(other) for other in _read(config, collection, "train")})
      return structure not in known[0]
    return True

  return is_held_back


def _read(config: run_config.RunConfig, collection: registry.Collection, split: str
          ) -> Iterator[graphs.Graph]:
  """The graphs of a real split, one at a time; none where the split cannot be read."""
  if split not in collection.splits:
    return
  try:
    found = collections.load_collection(
        collection, split, config.data.data_root, config.data.packed, config.data.packed_root)
  except errors.MissingDataError as error:
    _logger.warning("synthetic programs are not compared with %s %s: %s", collection.name, split,
                    error)
    return
  for index in range(len(found)):
    yield found[index]


# ---- where they stand in a step ------------------------------------------------------------------


def going_round(count: int, start: int, stop: int, seed: Sequence[int]) -> np.ndarray:
  """(stop - start,) int64 of an endless sequence: permutations of `count`, one after the other.

  What stands at a place depends on `seed` alone, so that a resumed run goes on as it would have.
  """
  first = start // count
  orders = [np.random.default_rng([turn, *seed]).permutation(count)
            for turn in range(first, -(-stop // count))]
  return np.concatenate([np.zeros([0], np.int64), *orders])[
      start - first * count:stop - first * count]


def epoch_batches(real: Sequence[batches.PreparedGraph],
                  synthetic: Sequence[batches.PreparedGraph], config: run_config.RunConfig,
                  epoch: int) -> Iterator[batches.Batch]:
  """The batches of one epoch.

  Without synthetic programs and a set number of steps, those of `batches.training_batches`.
  Otherwise each step has `synthetic_lists` synthetic lists, after the real ones, and the weights
  of both as `label_weight` (B,).

  Args:
    real, synthetic: the programs that train.
    config: the run's.
    epoch: from 0; what it holds depends on it and the seed only.
  """
  seed, batch, steps = config.training.seed, config.batch, config.training.steps_per_epoch
  if not synthetic and steps is None:
    yield from batches.training_batches(real, batch, seed, epoch)
    return
  steps = steps or -(-len(real) * batch.lists_per_graph // batch.batch_size)
  made = synthetic_lists(config) if synthetic else 0
  rng = np.random.default_rng([seed, epoch])
  sides: list[tuple[Sequence[batches.PreparedGraph], np.ndarray]] = []
  for members, lists, side in ((real, batch.batch_size - made, _REAL),
                               (synthetic, made, _SYNTHETIC)):
    if lists:
      places = going_round(len(members), epoch * steps * lists, (epoch + 1) * steps * lists,
                           [seed, side])
      sides.append((members, places.reshape(steps, lists)))
  for step in range(steps):
    found = batches.training_batch(
        [members[place] for members, places in sides for place in places[step]], batch, rng)
    yield weighted(found, config.augment, made) if synthetic else found


def weighted(batch: batches.Batch, augment: run_config.AugmentConfig, made: int) -> batches.Batch:
  """The batch with the weights of its lists, of which the last `made` are synthetic."""
  weights = np.ones(len(batch["config_mask"]), np.float32)
  weights[len(weights) - made:] = augment.synthetic_weight
  return {**batch, batches.WEIGHT: weights}
