"""The networks of a run directory, ready to score graphs."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import splits
from tpugraphs_rank.models import build_model
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import stored_weights


class Networks:
  """The networks of one kind that a run directory stores: its best checkpoint.

  Attributes:
    directory: the run directory.
    config: its configuration.
    about: collection, kind, target hardware and HLO stage that it was trained on.
    normalizer: feature scaling of its training split.
  """

  def __init__(self, directory: run_directory.RunDirectory):
    """Reads what a run directory stores, except for the weights, which the first scores need.

    Raises:
      RunDirectoryError: it is incomplete or damaged.
    """
    self.directory = directory
    self.config: run_config.RunConfig = directory.read_config()
    self.about: dict[str, Any] = directory.read_about()
    if self.about.get("kind") not in ("tile", "layout"):
      raise errors.RunDirectoryError(
          f"{directory / 'config.json'}: about.kind is {self.about.get('kind')!r}; expected 'tile' "
          "or 'layout': the run directory is damaged")
    self._best = directory / "checkpoints" / "best.npz"
    if not self._best.exists():
      if directory.read_status().get("state") in run_directory.DONE:
        raise errors.RunDirectoryError(
            f"{self._best} is missing, although training has ended; {self._again}")
      raise errors.RunDirectoryError(
          f"{directory.path} has no checkpoint yet; resume its training with "
          f"{directory.resume_command}")
    self.normalizer = normalize.Normalizer.load(directory / "normalizer.npz")
    self._stored = checkpoints.stored_shapes(self._best, "model")
    stored_weights.check_count(self.config.model, self._stored, str(self._best))
    self._model = build_model(self.about["kind"], self.config)
    self._scorer = scoring.Scorer(self._model, self.config)
    self._member_scorers = [scoring.Scorer(member, self.config) for member in self._model.members]
    self._restored = False  # Whether the weights are those of the checkpoint.

  @property
  def _again(self) -> str:
    """How to train these networks again."""
    if self.directory.ensemble is None:
      return "train again into an empty --run_dir, or restore it"
    return (f"restore it, or delete {self.directory.path}, which is a kind of an ensemble, and run "
            f"{self.directory.resume_command}, which trains this kind again")

  @property
  def count(self) -> int:
    """The number of networks."""
    return len(self._member_scorers)

  def scores(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    """For each program the mean scores (c',) float32 of its usable configurations."""
    prepared = self._prepared(programs)
    return self._scorer(prepared) if prepared else []

  def by_member(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    """For each program the scores (`count`, c') float32 of each network."""
    prepared = self._prepared(programs)
    by_network = [scorer(prepared) for scorer in self._member_scorers] if prepared else []
    return [np.stack(rows) for rows in zip(*by_network)]

  def _prepared(self, programs: Sequence[splits.ProgramView]) -> list[batches.PreparedGraph]:
    prepared = [batches.prepare(program, self.normalizer) for program in programs]
    if prepared and not self._restored:
      self._restore(prepared[0])
    return prepared

  def _restore(self, prepared: batches.PreparedGraph) -> None:
    """Creates the model's variables and assigns the best checkpoint's values to them."""
    if not self._model.built:
      whole = dataclasses.replace(prepared, choice=np.arange(prepared.graph.num_configs))
      batch, _ = next(batches.scoring_batches([whole], 2, self._model.reference_size))
      with stored_weights.no_more_than(self._stored, str(self._best), errors.RunDirectoryError):
        self._model.create_variables(self._model.arrange(batch))
    try:
      checkpoints.restore(self._best, {"model": self._model.trainable_variables})
    except errors.RunDirectoryError as error:
      if self.directory.ensemble is None:
        raise
      raise errors.RunDirectoryError(f"{error}; {self._again}") from error
    self._restored = True
