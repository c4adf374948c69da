"""Mixes synthetic programs into training: which programs, and how many lists of each step.

Each step has a fixed number of synthetic lists; the others are real. Real and synthetic programs
are each used in one random permutation after another, so the numbers of uses of two programs
differ by at most one.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
import dataclasses
import logging

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

# Seed components that distinguish the streams. None is 0, which NumPy treats like a missing value.
_REAL, _SYNTHETIC, _SHUFFLED = 1, 2, 3


def synthetic_lists(config: run_config.RunConfig) -> int:
  """Synthetic lists per step: max(round(synthetic_share * batch_size), 1), or 0 without any."""
  if config.augment.synthetic is None:
    return 0
  return max(round(config.augment.synthetic_share * config.batch.batch_size), 1)


def check(config: run_config.RunConfig) -> None:
  """Raises ConfigError if the settings ask for real lists, but no list of a step would be real."""
  count, size = synthetic_lists(config), config.batch.batch_size
  if count == size and config.augment.synthetic_share < 1:
    raise errors.ConfigError(
        f"augment.synthetic_share {config.augment.synthetic_share} of {size} lists per step leaves "
        "no real list; raise --batch_size, lower --synthetic_share, or set --synthetic_share=1")


def training_programs(config: run_config.RunConfig, real: Sequence[splits.ProgramView],
                      synthetic: Sequence[splits.ProgramView]) -> list[splits.ProgramView]:
  """The programs that lists are sampled from. Feature scaling is fitted on them."""
  without_real = synthetic and synthetic_lists(config) == config.batch.batch_size
  return [*(() if without_real else real), *synthetic]


# ---- the synthetic programs used for training ----------------------------------------------------


def training_split(collection: registry.Collection, source: registry.Collection,
                   any_target: bool = False) -> str:
  """The split of a synthetic collection that is used for training: train, or all.

  Args:
    collection: the real collection.
    source: the synthetic collection.
    any_target: whether its programs may have been measured on other hardware.

  Raises:
    CompatibilityError: the collection is of another kind, target or HLO stage.
    ConfigError: it has no such split.
  """
  for key, remedy in (
      ("kind", "use synthetic programs whose configurations are of that kind"),
      ("target", "measure the synthetic programs on the hardware of the real ones, or pass "
       "--synthetic_any_target to assume that both rank configurations in the same way"),
      ("hlo_stage", "featurize both before, or both after, optimization")):
    ours, theirs = getattr(collection, key), getattr(source, key)
    if ours != theirs and not (any_target and key == "target"):
      raise errors.CompatibilityError(
          f"augment.synthetic: collection {source.name} has {key} {theirs!r}, but "
          f"{collection.name} has {ours!r}; {remedy}")
  split = next((name for name in ("train", registry.WHOLE) if name in source.splits), None)
  if split is None:
    raise errors.ConfigError(
        f"augment.synthetic: collection {source.name} has the splits {', '.join(source.splits)}; "
        "expected train or all")
  return split


def load_synthetic(config: run_config.RunConfig, collection: registry.Collection,
                   valid: Sequence[splits.ProgramView]) -> splits.Loaded:
  """Reads the synthetic programs for training.

  Args:
    config: the configuration of the run; `augment.synthetic` is not None.
    collection: the real collection.
    valid: the real validation programs.

  Returns:
    The programs, and statistics. The statistics list as `held_back` the programs left out because
    validation or test contain them.

  Raises:
    CompatibilityError: the collection is of another kind, target, HLO stage or padding.
    DataError: no program is left; and as `splits.load`.
    ConfigError: the collection has no split to train on.
  """
  augment, seed = config.augment, config.training.seed
  assert augment.synthetic is not None
  source = registry.get_collection(augment.synthetic)
  split = training_split(collection, source, augment.synthetic_any_target)
  data = dataclasses.replace(
      config.data, collection=augment.synthetic, split_by="program",
      max_graphs=augment.synthetic_graphs)
  loaded = splits.load(data, split, seed, config.batch.max_configs,
                       _held_back(config, collection, valid))
  ours, theirs = (programs[0].graph.feature_padding for programs in (valid, loaded.programs))
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
  """A hash of opcodes and edges; it ignores shapes."""
  return twins.graph_hash(graph.node_opcode, graph.edge_index)


def _content(graph: graphs.Graph) -> str:
  """A hash of opcodes, edges and node features."""
  return twins.graph_hash(graph.node_opcode, graph.edge_index, graph.node_feat)


def _held_back(config: run_config.RunConfig, collection: registry.Collection,
               valid: Sequence[splits.ProgramView]) -> Callable[[graphs.Graph], bool]:
  """A function that decides whether validation or test contain a graph; see `AugmentConfig`."""
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
      return False  # Training uses all programs; only configurations are held back.
    if rule == "unseen":
      # Compare with all training programs, sampled or not: the collection defines what is unseen.
      # The programs are read on demand, because a training split may be large.
      if not known:
        known.append({_structure(other) for other in _read(config, collection, "train")})
      return structure not in known[0]
    return True

  return is_held_back


def _read(config: run_config.RunConfig, collection: registry.Collection, split: str
          ) -> Iterator[graphs.Graph]:
  """The graphs of a real split, one at a time; none if the split does not exist."""
  if split not in collection.splits:
    return
  try:
    stored = collections.load_collection(
        collection, split, config.data.data_root, config.data.packed, config.data.packed_root,
        config.data.partial)
  except errors.MissingDataError as error:
    _logger.warning("synthetic programs are not compared with %s %s: %s", collection.name, split,
                    error)
    return
  yield from stored


# ---- the lists of each step ----------------------------------------------------------------------


def repeated_permutations(count: int, start: int, stop: int, seed: Sequence[int]) -> np.ndarray:
  """Part of an endless sequence of random permutations of range(count), as (stop - start,) int64.

  The value at a position depends on `seed` alone, so a resumed run continues the same sequence.
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

  Without synthetic programs and without a set number of steps, these are the batches of
  `batches.training_batches`. Otherwise each step has real lists followed by `synthetic_lists`
  synthetic lists, and the weights of both as `label_weight` (B,).

  Args:
    real, synthetic: the training programs.
    config: the configuration of the run.
    epoch: from 0. The content of an epoch depends on it and the seed only.
  """
  num_synthetic = synthetic_lists(config)
  for lists in epoch_lists(real, synthetic, config, epoch):
    joined = batches.assemble(lists, config.batch)
    yield weighted(joined, config.augment, num_synthetic) if synthetic else joined


def epoch_lists(real: Sequence[batches.PreparedGraph],
                synthetic: Sequence[batches.PreparedGraph], config: run_config.RunConfig,
                epoch: int) -> Iterator[list[batches.DrawnList]]:
  """The lists of each batch of `epoch_batches`; same arguments."""
  seed, batch, steps = config.training.seed, config.batch, config.training.steps_per_epoch
  if not synthetic and steps is None:
    yield from batches.training_lists(real, batch, seed, epoch)
    return
  steps = steps or -(-len(real) * batch.lists_per_graph // batch.batch_size)
  num_synthetic = synthetic_lists(config) if synthetic else 0
  rng = np.random.default_rng([seed, epoch])
  sides: list[tuple[Sequence[batches.PreparedGraph], np.ndarray]] = []
  for members, lists, side in ((real, batch.batch_size - num_synthetic, _REAL),
                               (synthetic, num_synthetic, _SYNTHETIC)):
    if lists:
      places = repeated_permutations(
          len(members), epoch * steps * lists, (epoch + 1) * steps * lists, [seed, side])
      sides.append((members, places.reshape(steps, lists)))
  for step in range(steps):
    yield batches.draw(
        [members[place] for members, places in sides for place in places[step]], batch, rng)


def weighted(batch: batches.Batch, augment: run_config.AugmentConfig, num_synthetic: int
             ) -> batches.Batch:
  """Adds the weights of the lists to a batch, whose last `num_synthetic` lists are synthetic."""
  return {**batch, batches.WEIGHT: weights(len(batch["config_mask"]), augment, num_synthetic)}


def weights(count: int, augment: run_config.AugmentConfig, num_synthetic: int) -> np.ndarray:
  """(count,) float32: the weights of a batch's lists, of which the last are synthetic."""
  values = np.ones(count, np.float32)
  values[count - num_synthetic:] = augment.synthetic_weight
  return values
