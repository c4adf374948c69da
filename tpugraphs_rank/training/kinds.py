"""Networks of further kinds in a run's ensemble: other models, objectives or features.

Each kind is a run directory of its own, `kinds/1` and so on, that training fills. The score of a
configuration is the mean over all networks of all kinds, each in the unit of the run's own:

    score = (n_0 s_0 + sum over k of n_k * (d_0 / d_k) * s_k) / (n_0 + sum over k of n_k)

where s_k is the mean score of the n_k networks of kind k, and 0 is the run's own kind. d_k is the
mean standard deviation of s_k over the configurations of a training program. The deviations are the
same for all programs, so that scores of two lists of configurations remain comparable. A kind that
scores all configurations of a program alike has the factor 0 instead of d_0 / d_k.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging

import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import score_deviations
from tpugraphs_rank.training import kind_settings
from tpugraphs_rank.training import kinds_file
from tpugraphs_rank.training import networks as networks_lib
from tpugraphs_rank.training import run_directory

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Kinds:
  """The further kinds of a run, and how they are averaged with its own networks.

  Attributes:
    own: number of the run's own networks.
    networks: those of each further kind.
    deviations: of the scores within a training program: of the run's own kind, then of each further
      one.
    metrics: of the mean on the validation split; None if not defined.
  """

  own: int
  networks: tuple[networks_lib.Networks, ...]
  deviations: tuple[float, ...]
  metrics: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

  def add(self, programs: Sequence[splits.ProgramView], own: Sequence[np.ndarray]
          ) -> list[np.ndarray]:
    """The mean over all kinds, (c',) float32 for each program, from the scores of the own one."""
    sums = [np.float32(self.own) * values for values in own]
    for networks, factor in zip(self.networks, kinds_file.factors(self.deviations)):
      for total, values in zip(sums, networks.scores(programs)):
        total += np.float32(networks.count) * (factor * values)
    count = np.float32(self.own + sum(networks.count for networks in self.networks))
    return [total / count for total in sums]

  def members(self, programs: Sequence[splits.ProgramView], own: Sequence[np.ndarray]
              ) -> list[np.ndarray]:
    """The scores (m, c') float32 of all networks, for each program, whose mean is that of `add`.

    Args:
      programs: the programs.
      own: for each of them the scores (m', c') of the run's own networks.
    """
    rows = [[values] for values in own]
    for networks, factor in zip(self.networks, kinds_file.factors(self.deviations)):
      for of_program, values in zip(rows, networks.by_member(programs)):
        of_program.append(factor * values)
    return [np.concatenate(of_program) for of_program in rows]


def of_number(directory: run_directory.RunDirectory, number: int) -> run_directory.RunDirectory:
  """The run directory of a further kind, from 1.

  Raises:
    OutputError: a part of its path is a link.
  """
  return run_directory.RunDirectory(files.without_links(
      directory.path, run_directory.KINDS, str(number)))


def fit(own: networks_lib.Networks, programs: Sequence[splits.ProgramView]) -> Kinds:
  """Measures the deviations of all kinds, which are trained.

  Args:
    own: the run's own networks.
    programs: training programs.

  Raises:
    RunDirectoryError: a kind is missing or damaged.
    TrainingError: the scores of a kind deviate too much, or are not finite.
  """
  networks = _networks(own)
  deviations = []
  for kind in (own, *networks):
    try:
      deviations.append(score_deviations.mean(kind.scores(programs)))
    except errors.TrainingError as error:
      raise errors.TrainingError(f"{kind.directory.path}: {error}") from error
  for number, deviation in enumerate(deviations[1:], start=1):
    if score_deviations.is_constant(deviation):
      _logger.warning("kind %d scores all configurations of a program alike, so it has no weight",
                      number)
  return Kinds(own.count, networks, tuple(deviations))


def read(own: networks_lib.Networks) -> Kinds | None:
  """The further kinds of a run; None if it has none, or, with a warning, if they are not trained.

  Raises:
    RunDirectoryError: a file or a kind is missing or damaged.
  """
  directory, count = own.directory, len(own.config.model.kinds)
  path = directory / kinds_file.FILE
  if not count:
    return None
  if not path.exists():
    _logger.warning("%s has no %s, so it scores without the further kinds of its ensemble; the "
                    "command that trained it trains them", directory.path, path.name)
    return None
  stored = kinds_file.read(path, 1 + count)
  return Kinds(own.count, _networks(own), stored.deviations, stored.metrics)


def _networks(own: networks_lib.Networks) -> tuple[networks_lib.Networks, ...]:
  """The networks of each further kind.

  Raises:
    RunDirectoryError: some are missing, damaged, or of another run.
  """
  result = []
  for number, expected in enumerate(kind_settings.of(own.config), start=1):
    directory = run_directory.RunDirectory(own.directory / run_directory.KINDS / str(number))
    again = (f"restore it, or delete {directory.path} and run the training command again, which "
             "trains this kind again")
    try:
      networks = networks_lib.Networks(directory)
    except (errors.ConfigError, errors.RunDirectoryError) as error:
      raise errors.RunDirectoryError(
          f"kind {number} of {own.directory.path} is missing or damaged ({error}); {again}"
          ) from error
    different = config_lib.differences(networks.config, expected)
    if different or networks.about.get("kind") != own.about.get("kind"):
      raise errors.RunDirectoryError(
          f"{directory.path} is not kind {number} of {own.directory.path}: "
          f"{'; '.join(different) or 'its graphs are of another kind'}; {again}")
    result.append(networks)
  return tuple(result)
