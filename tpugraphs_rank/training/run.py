"""A trained run: its model, ready to score graphs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import logging
import numbers
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import plugin_trust
from tpugraphs_rank import run_config
from tpugraphs_rank.data import element_types
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.metrics import evidence as evidence_lib
from tpugraphs_rank.training import evidence_files
from tpugraphs_rank.training import kinds as kinds_lib
from tpugraphs_rank.training import networks
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import tree_member

_logger = logging.getLogger(__name__)

# Limits of the graphs that are read before they are scored together: bytes and number.
_GROUP_BYTES = 128 * 2**20
_GROUP_GRAPHS = 64


class Unseen(NamedTuple):
  """What a graph has that training never saw.

  Attributes:
    name: of the graph.
    opcodes: their names.
    types: element types, see `data.element_types`.
  """

  name: str
  opcodes: tuple[str, ...]
  types: tuple[str, ...]


class Scored(NamedTuple):
  """A graph and the scores of all its configurations.

  Attributes:
    graph: the graph.
    scores: (c,) float32, higher = faster.
    members: (m, c) float32, the scores of each member of an ensemble: its networks, those of its
      further kinds, then its boosted trees; None for a single network.
  """

  graph: graphs.ConfiguredGraph
  scores: np.ndarray
  members: np.ndarray | None


class Run:
  """The best checkpoint of a run directory.

  Attributes:
    directory: the run directory.
    config: the run's configuration.
    about: collection, kind, target hardware and HLO stage that it was trained on.
    normalizer: feature scaling of its training split.
    strict: whether graphs that do not fit the run are refused, instead of warned about.
    prior: the analytic cost that scores tiles of programs unlike those of training; None: the run
      has none, or does not use it.
    kinds: networks of further kinds, with which those of the run are averaged; None: the run has
      none.
    trees: boosted trees whose scores are added to those of the networks; None: the run has none.
  """

  def __init__(self, directory: run_directory.RunDirectory, strict: bool = False,
               prior: str = tile_prior.ANALYTIC, networks_only: bool = False):
    if prior not in tile_prior.CHOICES:
      raise errors.ConfigError(
          f"prior is {prior!r}; expected one of {', '.join(tile_prior.CHOICES)}")
    self.directory = directory
    self.strict = strict
    self._networks = networks.Networks(directory)
    self.config: run_config.RunConfig = self._networks.config
    self.about: dict[str, Any] = self._networks.about
    self.normalizer = self._networks.normalizer
    self.prior = tile_prior.read(directory) if prior == tile_prior.ANALYTIC else None
    self.kinds = None if networks_only else kinds_lib.read(self._networks)
    self.trees = None if networks_only else tree_member.read(directory)
    if self.trees is None and self.config.model.trees_weight and not networks_only:
      _logger.warning("%s has no %s, so it scores without the boosted trees of its ensemble; the "
                      "command that trained it fits them", directory.path, tree_member.FILE)

  def __repr__(self) -> str:
    return (f"<Run {self.directory}: {self.config.model.model} on "
            f"{self.about.get('collection')}>")

  @property
  def evidence(self) -> evidence_lib.Evidence | None:
    """Figures and calibration of its predictions; None if an older version trained the run.

    Raises:
      RunDirectoryError: the file is damaged.
    """
    return evidence_files.read(self.directory)

  def score_programs(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    """Scores each program's usable configurations, (c',) float32, higher = faster.

    Raises:
      CompatibilityError: a graph is of another kind or padding; or, where `strict`, has opcodes or
        element types that training never saw.
    """
    self.check([program.graph for program in programs])
    return self._scores_of(programs)

  def _scores_of(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    scores = self._networks.scores(programs)
    if self.kinds is not None:
      scores = self.kinds.add(programs, scores)
    for program, values in zip(programs, scores):
      _check_finite(program.graph, values)
    return [self._with_prior(program, self._with_trees(program, values))
            for program, values in zip(programs, scores)]

  def _with_trees(self, program: splits.ProgramView, learned: np.ndarray) -> np.ndarray:
    """(c',) scores of the networks, plus those of the trees if the run has some."""
    if self.trees is None:
      return learned
    return self.trees.add(learned, self.trees.scores(program.graph, program.choice))

  def _with_prior(self, program: splits.ProgramView, scores: np.ndarray) -> np.ndarray:
    """(..., c') scores of one or several networks, with the analytic cost where it counts."""
    return scores if self.prior is None else self.prior.scores(
        program.graph, scores, program.choice)

  def prior_weight(self, graph: graphs.Graph) -> float:
    """The weight of the analytic cost in a program's scores: 0 (none) to 1 (nothing else)."""
    return 0.0 if self.prior is None or graph.kind != "tile" else self.prior.weight(graph)

  def score(self, graph: graphs.ConfiguredGraph, configs: np.ndarray | None = None) -> np.ndarray:
    """Scores all configurations of a graph, (c,) float32, higher = faster.

    The graph needs no runtimes. Equal configurations have equal scores. The setting
    `scoring_megabytes` limits the memory, however many configurations there are. It changes scores
    by rounding errors only, so configurations whose scores are equal up to rounding may be ordered
    differently when the setting changes.

    Args:
      graph: the graph.
      configs: configurations to score instead of the graph's own: (c, nc, 18) layouts of its
        configurable nodes, or (c, 24) tile features. A model that compares configurations takes its
        reference list from these, so that scores from two calls are not comparable.

    Raises:
      DataError: `configs` do not fit the graph.
      CompatibilityError: as for `score_programs`.
    """
    if configs is not None:
      graph = graphs.with_configs(graph, configs)
    return self.score_programs([splits.ProgramView(graph)])[0]

  def rank(self, graph: graphs.ConfiguredGraph, k: int = 10) -> np.ndarray:
    """The best k configurations of a graph, or all if it has fewer: (k,) int64, best first.

    Raises:
      ConfigError: k is not positive.
      CompatibilityError: as for `score_programs`.
    """
    if not isinstance(k, numbers.Integral) or k < 1:
      raise errors.ConfigError(f"k is {k!r}; expected a whole number from 1")
    return metrics.ranking(self.score(graph))[:int(k)]

  def score_each(self, graphs_: Iterable[graphs.ConfiguredGraph]
                 ) -> Iterator[tuple[graphs.ConfiguredGraph, np.ndarray]]:
    """Scores all configurations of one graph after another, with few graphs in memory.

    Yields:
      Each graph and its scores, as from `score`. One warning at the end lists unseen opcodes and
      element types.

    Raises:
      CompatibilityError: as for `score_programs`.
    """
    for group in self._checked_groups(graphs_):
      yield from zip(group, self._scores_of([splits.ProgramView(graph) for graph in group]))

  def score_group(self, graphs_: Sequence[graphs.ConfiguredGraph]) -> list[np.ndarray]:
    """As `score_each`, for graphs that fit into memory together, and without a warning.

    The scores depend on the other graphs of the group by rounding errors only.

    Returns:
      The scores of each graph.
    """
    return self._scores_of([splits.ProgramView(graph) for graph in graphs_])

  def score_each_with_members(self, graphs_: Iterable[graphs.ConfiguredGraph]) -> Iterator[Scored]:
    """As `score_each`, with the scores of each member of an ensemble.

    Where the members disagree, the mean of their scores says little.

    Raises:
      CompatibilityError: as for `score_programs`.
    """
    for group in self._checked_groups(graphs_):
      programs = [splits.ProgramView(graph) for graph in group]
      if self._networks.count == 1 and self.kinds is None and self.trees is None:
        for graph, scores in zip(group, self._scores_of(programs)):
          yield Scored(graph, scores, None)
        continue
      by_member = self._networks.by_member(programs)
      if self.kinds is not None:
        by_member = self.kinds.members(programs, by_member)
      for program, members in zip(programs, by_member):
        # The ensemble's scores are the mean; computing them again would take as long as all others.
        mean = np.sum(members, axis=0) / np.float32(len(members))
        _check_finite(program.graph, mean)
        if self.trees is not None:
          own = self.trees.scores(program.graph)
          members, mean = np.vstack([members, own]), self.trees.add(mean, own)
        yield Scored(program.graph, *(self._with_prior(program, values)
                                      for values in (mean, members)))

  def _checked_groups(self, graphs_: Iterable[graphs.ConfiguredGraph]
                      ) -> Iterator[list[graphs.ConfiguredGraph]]:
    """Groups of graphs; at the end, one warning about what training never saw."""
    unseen: list[Unseen] = []
    for group in _groups(graphs_):
      unseen += [self.unseen(graph) for graph in group]
      if self.strict:
        self.report(unseen)
      yield group
    self.report(unseen)

  def check(self, graphs_: Sequence[graphs.Graph]) -> None:
    """Checks that graphs fit the run.

    Raises:
      CompatibilityError: a graph cannot be scored; or, where `strict`, it does not fit. Otherwise
        one warning names the graphs that do not fit.
    """
    self.report([self.unseen(graph) for graph in graphs_])

  def unseen(self, graph: graphs.Graph) -> Unseen:
    """What training never saw of a graph.

    Raises:
      CompatibilityError: the run cannot score the graph.
    """
    if not isinstance(graph, graphs.Graph):
      raise errors.DataError(
          f"{type(graph).__name__} is no graph; expected one, such as an element of "
          "tpugraphs_rank.load_collection(...)")
    if graph.kind != self.about["kind"] or not graph.num_configs:
      kind = graph.kind or "bare"
      raise errors.CompatibilityError(
          f"{graph.name} is a {kind} graph with {graph.num_configs} configurations; the run "
          f"{self.directory} scores {self.about['kind']} graphs with at least one")
    if graph.feature_padding != self.normalizer.feature_padding:
      raise errors.CompatibilityError(
          f"{graph.name} has feature_padding {graph.feature_padding}; the run "
          f"{self.directory} was trained on {self.normalizer.feature_padding}: featurize it "
          f"with --padding={self.normalizer.feature_padding}")
    numbers = normalize.unseen_opcodes(self.normalizer, graph)
    return Unseen(graph.name, tuple(map(opcodes.opcode_name, numbers)), element_types.unseen(
        self.about, self.normalizer, graph))

  def report(self, unseen: Sequence[Unseen]) -> None:
    """Warns about graphs with unseen opcodes or element types.

    Raises:
      CompatibilityError: there are some, and the run is strict.
    """
    self._report_one("opcodes", {one.name: one.opcodes for one in unseen})
    self._report_one("element types", {one.name: one.types for one in unseen})

  def _report_one(self, what: str, by_graph: Mapping[str, Sequence[str]]) -> None:
    affected = {name: values for name, values in by_graph.items() if values}
    if affected:
      names = ", ".join(sorted({value for values in affected.values() for value in values}))
      listed = ", ".join(list(affected)[:3]) + (", ..." if len(affected) > 3 else "")
      if len(by_graph) == 1:
        subject, whose = f"{listed} has", "its"
      else:
        subject, whose = f"{len(affected)} of {len(by_graph)} graphs ({listed}) have", "their"
      self._warn(f"{subject} {what} that training never saw: {names}; {whose} ranking may be no "
                 "better than chance")

  def check_collection(self, collection: registry.Collection) -> None:
    """Warns, or raises where `strict`, if a collection has another target or HLO stage."""
    for key in ("target", "hlo_stage"):
      value = getattr(collection, key)
      if self.about.get(key) != value:
        self._warn(f"collection {collection.name} has {key} {value!r}; the run "
                       f"{self.directory} was trained on {self.about.get(key)!r}")

  def check_target(self, target: str) -> None:
    """Warns, or raises where `strict`, if a program is for another target."""
    if self.about.get("target") != target:
      self._warn(f"the program is for the target {target!r}; the run {self.directory} was "
                     f"trained on {self.about.get('target')!r}: the ranking may not transfer")

  def _warn(self, message: str) -> None:
    if self.strict:
      raise errors.CompatibilityError(message)
    _logger.warning("%s", message)


def _check_finite(graph: graphs.Graph, scores: np.ndarray) -> None:
  if not np.isfinite(scores).all():
    raise errors.DataError(f"{graph.name}: scores are not finite; its features may be extreme")


def _groups(graphs_: Iterable[graphs.ConfiguredGraph]
            ) -> Iterator[list[graphs.ConfiguredGraph]]:
  """Splits graphs into groups that are scored together and fit into memory."""
  group: list[graphs.ConfiguredGraph] = []
  size = 0
  for graph in graphs_:
    group.append(graph)
    size += graph.nbytes
    if size >= _GROUP_BYTES or len(group) == _GROUP_GRAPHS:
      yield group
      group, size = [], 0
  if group:
    yield group


def load_run(path: files.PathLike, strict: bool = False, prior: str = tile_prior.ANALYTIC,
             trust_plugins: bool = False) -> Run:
  """Loads a run directory for scoring.

  Args:
    path: the run directory, or `bundled:NAME`.
    strict: whether to refuse, instead of warn about, graphs of another target or HLO stage and
      graphs with opcodes or element types that training never saw.
    prior: "analytic" to use the run's analytic cost of tiles, if it has one, or "none".
    trust_plugins: whether to run plugins of the run that the user has not named before.

  Raises:
    RunDirectoryError: it is incomplete or damaged.
    ConfigError: there is no such prior, or the user does not know a plugin of the run.
  """
  with plugin_trust.consenting(trust_plugins):
    return Run(run_directory.RunDirectory(path), strict, prior)
