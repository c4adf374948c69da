"""The programs and configurations of each split, as a run's settings select them."""

import collections as containers
from collections.abc import Callable
import dataclasses
import logging
from typing import Any, NamedTuple
import zlib

import numpy as np
import tqdm

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import config_lists
from tpugraphs_rank.data import duplicates
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import quirks
from tpugraphs_rank.data import registry

_logger = logging.getLogger(__name__)

# Maximum number of graph names that a log line lists.
_MAX_NAMES = 20
# A ranking needs two configurations.
_RANKED = 2


@dataclasses.dataclass(frozen=True)
class ProgramView:
  """A graph and the configurations of it that one side of a split may use.

  Attributes:
    graph: the graph.
    choice: (c',) int64 configuration indices; None: all.
    merged: (c,) float64 runtimes to rank by if the runtimes of equal configurations were merged
      into one (at `choice`); None: the graph's own runtimes.
    facts: the hardware that ran it.
  """

  graph: graphs.ConfiguredGraph
  choice: np.ndarray | None = None
  merged: np.ndarray | None = None
  facts: targets.TargetFacts = targets.CPU

  def __repr__(self) -> str:
    return f"<ProgramView {self.graph.name}: {len(self.indices)} configurations>"

  @property
  def indices(self) -> np.ndarray:
    """(c',) int64: the configurations that may be used, even if that is all of them."""
    return np.arange(self.graph.num_configs) if self.choice is None else self.choice

  @property
  def runtimes(self) -> np.ndarray:
    """(c,) float64: the runtimes to rank by; zeros if not measured."""
    return self.graph.relative_runtime if self.merged is None else self.merged


@dataclasses.dataclass
class Counts:
  """Statistics of the data read for a split. `str` returns them as one line.

  Attributes:
    name: collection and split.
    files: files of the split.
    min_configs: distinct configurations that a program needs.
    duplicates: how equal configurations are treated: "keep", "mean", "minimum" or "first".
    list_size: configurations of a full list; None: unknown.
    sample_seed: the seed that selected the programs; None: all files were read.
    packed: whether packed files were read.
    missing: number of graphs of the split that do not exist, with `partial`.
    programs: programs used.
    configurations: configurations used.
    repeats: configurations equal to an earlier one of the same program and side.
    programs_with_repeats: programs with such configurations.
    equal_runtimes: programs whose configurations all have the same runtime: nothing to rank.
    short_lists: programs with fewer configurations than a full list.
    isolated_nodes: nodes without an edge.
    programs_with_isolated_nodes: programs with such nodes.
    left_out: names of the programs with fewer than `min_configs` distinct configurations.
    held_back: names of the programs left out because validation or test contain them.
  """

  name: str
  files: int
  min_configs: int
  duplicates: str
  list_size: int | None = None
  sample_seed: int | None = None
  packed: bool = False
  missing: int = 0
  programs: int = 0
  configurations: int = 0
  repeats: int = 0
  programs_with_repeats: int = 0
  equal_runtimes: int = 0
  short_lists: int = 0
  isolated_nodes: int = 0
  programs_with_isolated_nodes: int = 0
  left_out: list[str] = dataclasses.field(default_factory=list)
  held_back: list[str] = dataclasses.field(default_factory=list)

  def __str__(self) -> str:
    parts = [f"{self.programs} programs with {self.configurations} configurations"]
    if self.sample_seed is not None:
      parts[0] += f", sampled with seed {self.sample_seed} from {self.files} files"
    if self.packed:
      parts[0] += ", read from packed files"
    if self.missing:
      parts.append(f"partial: {self.missing} of {self.files + self.missing} graphs are missing")
    if self.repeats:
      parts.append(f"{self.repeats} repeated configurations in {self.programs_with_repeats} "
                   "programs " + ("(kept)" if self.duplicates == "keep" else
                      f"(merged: {self.duplicates} runtime)"))
    if self.equal_runtimes:
      parts.append(f"{self.equal_runtimes} programs have nothing to rank, because the runtimes of "
                   "all their configurations are equal")
    if self.short_lists:
      parts.append(f"{self.short_lists} programs have fewer configurations than a list of "
                   f"{self.list_size}")
    if self.isolated_nodes:
      parts.append(f"{self.isolated_nodes} nodes without an edge in "
                   f"{self.programs_with_isolated_nodes} programs")
    if self.left_out:
      parts.append(
          f"left out {len(self.left_out)} of {self.programs + len(self.left_out)} programs with "
          f"fewer than {self.min_configs} distinct configurations: {_listing(self.left_out)}")
    if self.held_back:
      parts.append(f"left out {len(self.held_back)} programs that are also in validation or test: "
                   f"{_listing(self.held_back)}")
    return f"{self.name}: {'; '.join(parts)}"


def _listing(names: list[str]) -> str:
  """The first names, and the number of the others."""
  more = len(names) - _MAX_NAMES
  return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


class Loaded(NamedTuple):
  """The programs of a split, and the statistics of the data read."""

  programs: list[ProgramView]
  counts: Counts


def load_programs(config: run_config.DataConfig, split: str, seed: int = 0) -> list[ProgramView]:
  """The programs that `load` returns; logs their statistics."""
  loaded = load(config, split, seed)
  _logger.info("%s", loaded.counts)
  return loaded.programs


def load(config: run_config.DataConfig, split: str, seed: int = 0,
         list_size: int | None = None,
         is_held_back: Callable[[graphs.Graph], bool] | None = None) -> Loaded:
  """Reads the programs of a split into memory, and gathers statistics.

  With `split_by="configuration"` all splits have the same programs ("all", or the training split
  of a collection divided by program), and differ in their distinct configurations.

  `config.duplicates` determines how equal configurations of a training program are merged.
  Configurations of validation and test are never merged: each is evaluated as it was published,
  whatever a run was trained on. So the validation metric of a run equals the one that evaluation
  reports.

  Args:
    config: which collection, and how it is divided.
    split: "train", "valid" or "test", or "all" for a collection that is not divided by program.
    seed: divides configurations, and samples programs if `max_graphs` limits their number. Files
      are read in random order until there are enough programs.
    list_size: configurations of a full list, to count the programs that have fewer.
    is_held_back: returns whether a graph must be left out.

  Raises:
    DataError: a program has no runtimes, the programs differ in their feature padding, or no
      program is left; and as `load_collection`.
  """
  collection = registry.get_collection(config.collection)
  by_configuration = config.split_by == "configuration"
  source = collections.load_collection(
      collection, _stored_split(collection, split, by_configuration), config.data_root,
      config.packed, config.packed_root, config.partial)
  # Each of the three sides needs a configuration.
  least = max(config.min_configs, len(registry.SPLITS)) if by_configuration else config.min_configs
  # If divided by configuration, every split has the programs sampled for training.
  limit = (config.max_graphs if split in ("train", registry.WHOLE) or by_configuration
           else None)
  counts = Counts(f"{collection.name} {split}", len(source), least,
                  config.duplicates if split == "train" else "keep", list_size,
                  packed=source.packs is not None, missing=source.missing)
  order = np.arange(len(source))
  if limit is not None and limit < len(source):
    order = np.random.default_rng([seed, 1]).permutation(len(source))
    counts.sample_seed = seed
  programs: dict[int, ProgramView] = {}
  most = 0
  paddings: dict[str, dict[Any, str]] = containers.defaultdict(dict)
  for index in tqdm.tqdm(order, desc=f"reading {counts.name}", unit="graph", disable=None,
                         leave=False):
    if limit is not None and len(programs) == limit:
      break
    graph, path = source[index], source.paths[index]
    keys = graph.config_keys()
    distinct = int(keys.max(initial=-1)) + 1  # Keys are numbered from 0.
    most = max(most, distinct)
    if distinct < least:
      counts.left_out.append(graph.name)
      continue
    if is_held_back is not None and is_held_back(graph):
      counts.held_back.append(graph.name)
      continue
    if not graph.has_runtimes:
      raise errors.DataError(
          f"{path}: config_runtime is all zero: this split has no measurements; train and "
          "evaluate on splits that do (the public test splits have none)")
    paddings["declared"].setdefault(graph.feature_padding, str(path))
    paddings["observed"].setdefault(quirks.observed_padding(graph), str(path))
    choice = None
    if by_configuration:
      sides = config_lists.split_configs(
          keys, config.train_fraction, config.valid_fraction,
          [seed, zlib.crc32(graph.name.encode())])
      choice = sides[registry.SPLITS.index(split)]
    programs[index] = _counted(
        ProgramView(graph, choice, facts=collection.facts), keys, counts)
  if not len(source):
    raise errors.DataError(
        f"{collection.name} {split}: the collection has no graphs in this split; expected at least "
        "one to train on or to evaluate")
  if not programs and counts.held_back:
    raise errors.DataError(
        f"{collection.name} {split}: no program is left, because {len(counts.held_back)} are also "
        "in validation or test; supply other programs, or see --synthetic_held_back")
  if not programs:
    raise errors.DataError(
        f"{collection.name} {split}: no program has {least} distinct configurations or more; the "
        f"{len(source)} programs read have at most {most}; "
        f"{_how_to_use_fewer(most, by_configuration)}")
  _check_paddings(counts.name, paddings)
  if counts.equal_runtimes == counts.programs:
    _logger.warning(
        "%s: there is nothing to rank: in each of the %d programs, the runtimes of all "
        "configurations are equal; measure again, with a finer clock or more repetitions",
        counts.name, counts.programs)
  return Loaded([programs[index] for index in sorted(programs)], counts)


def _how_to_use_fewer(most: int, by_configuration: bool) -> str:
  """The remedy if no program has enough distinct configurations; `most` is the largest number."""
  needed = len(registry.SPLITS) if by_configuration else _RANKED
  if most >= needed:
    return f"lower --min_configs to {most}"
  purpose = "dividing its configurations" if by_configuration else "a ranking"
  return f"{purpose} needs {needed}, so measure more configurations of each program"


def _stored_split(collection: registry.Collection, split: str, by_configuration: bool) -> str:
  """The split of the collection whose files must be read."""
  if by_configuration:
    if split not in registry.SPLITS:
      raise errors.UnknownNameError(
          f"no split {split!r}; expected one of: {', '.join(registry.SPLITS)}")
    return registry.WHOLE if registry.WHOLE in collection.splits else "train"
  if registry.WHOLE in collection.splits and split != registry.WHOLE:
    raise errors.ConfigError(
        f"collection {collection.name} is not divided by program; train with "
        f"--split_by=configuration, or divide it with {commands.command('make-collection')}")
  return split


def _counted(program: ProgramView, keys: np.ndarray, counts: Counts) -> ProgramView:
  """Updates `counts`; returns the program, with equal configurations merged if requested."""
  indices = program.indices
  repeats = len(indices) - len(np.unique(keys[indices]))
  if repeats and counts.duplicates != "keep":
    choice, merged = duplicates.merge(keys, program.runtimes, indices, counts.duplicates)
    program = dataclasses.replace(program, choice=choice, merged=merged)
  runtimes = program.runtimes[program.indices]
  counts.equal_runtimes += bool((runtimes == runtimes[0]).all())
  isolated = quirks.isolated_nodes(program.graph)
  used = len(program.indices)
  counts.programs += 1
  counts.configurations += used
  counts.repeats += repeats
  counts.programs_with_repeats += repeats > 0
  counts.isolated_nodes += isolated
  counts.programs_with_isolated_nodes += isolated > 0
  if counts.list_size is not None:
    counts.short_lists += used < counts.list_size
  return program


def _check_paddings(name: str, paddings: dict[str, dict[Any, str]]) -> None:
  """Raises if files declare different paddings; warns if only their features differ."""
  if len(paddings["declared"]) > 1:
    examples = ", ".join(f"{padding} in {path}" for padding, path in paddings["declared"].items())
    raise errors.DataError(
        f"{name}: graphs differ in feature_padding: {examples}; expected one padding in all graphs "
        "of a collection: featurize all with one --padding")
  observed = {padding: path for padding, path in paddings["observed"].items()
              if padding is not None}
  if len(observed) > 1:
    _logger.warning(
        "%s: feature lists look padded with %s; the files seem to come from two versions of the "
        "data (%s counts them)", name,
        " and ".join(f"{padding} in {path}" for padding, path in observed.items()),
        commands.command("describe"))
