"""The best candidates of a program: as JSON and as raw data to be measured."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import kernels
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import requests
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import operations
from tpugraphs_rank.hlo import stages
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2
from tpugraphs_rank.metrics import calibration as calibration_lib
from tpugraphs_rank.metrics import evidence as evidence_lib

# Scores of one configuration differ by rounding between two orders of addition.
_EQUAL = 1e-5
# Opcodes that compute nothing. TensorFlow's programs end with them.
_BOOKKEEPING = ("add-dependency", "after-all", "domain", "get-tuple-element", "opt-barrier",
                "tuple")


@dataclasses.dataclass(frozen=True)
class Ranked:
  """A program's candidates in their predicted order.

  Attributes:
    program: the program.
    candidates: its candidates.
    scores: (c,) float, higher = predicted faster.
    order: (c,) positions, the best first.
    top_k: number of best candidates to report.
    members: (m, c) the scores of each network of an ensemble; None for a single network.
    evidence: how good the run's predictions were on validation; None if the run does not say.
    kernel: the part of a larger program that this is; None: it is a whole file's program.
    unseen_opcodes, unseen_types: what training never saw.
    misfit: why the program does not fit the run otherwise, as "it is for another target".
    prior_weight: the weight of the run's analytic cost in the scores, from 0 to 1.
  """

  program: programs.HloProgram
  candidates: candidate_set.Candidates
  scores: np.ndarray
  order: np.ndarray
  top_k: int
  members: np.ndarray | None = None
  evidence: evidence_lib.Evidence | None = None
  kernel: kernels.Kernel | None = None
  unseen_opcodes: tuple[str, ...] = ()
  unseen_types: tuple[str, ...] = ()
  misfit: str = ""
  prior_weight: float = 0.0

  @property
  def best(self) -> list[int]:
    """Positions of the best candidates, at most `top_k`."""
    return [int(position) for position in self.order[:self.top_k]]

  @property
  def rank_of_default(self) -> int:
    """The rank of the default, from 1; 0 if it is not known."""
    default = self.candidates.default
    return 0 if default is None else int(np.flatnonzero(self.order == default)[0]) + 1

  @functools.cached_property
  def _sorted_scores(self) -> np.ndarray:
    return np.sort(self.scores.astype(np.float64))

  @functools.cached_property
  def _member_ranks(self) -> np.ndarray:
    """(m, c) the rank that each network gives each candidate; equal scores share the best one."""
    assert self.members is not None
    return np.stack([len(scores) + 1 - np.searchsorted(np.sort(scores), scores, side="right")
                     for scores in self.members])

  def shared_rank(self, position: int) -> tuple[int, int]:
    """The rank of a candidate, and how many others share it because their scores are equal."""
    score = float(self.scores[position])
    tolerance = _EQUAL * max(abs(score), 1.0)
    low, high = (int(place) for place in (
        np.searchsorted(self._sorted_scores, score - tolerance, side="left"),
        np.searchsorted(self._sorted_scores, score + tolerance, side="right")))
    return len(self.scores) - high + 1, high - low - 1

  def member_ranks(self, position: int) -> list[int]:
    """The rank that each network of the ensemble gives a candidate; empty for a single network."""
    return [] if self.members is None else self._member_ranks[:, position].tolist()

  def members_for(self, position: int) -> int | None:
    """How many networks score a candidate above the default; None if there is no such count."""
    default = self.candidates.default
    if self.members is None or default is None:
      return None
    return int((self.members[:, position] > self.members[:, default]).sum())

  def calibrated(self, position: int) -> calibration_lib.Bin | None:
    """The validation configurations whose lead over the default was like this candidate's.

    None for the default, and where nothing is known; see `why_uncalibrated`.
    """
    default = self.candidates.default
    if self.why_uncalibrated or position == default:
      return None
    assert self.evidence is not None and self.evidence.calibration is not None
    lead = float(self.scores[position]) - float(self.scores[default])
    return self.evidence.calibration.of(np.array([lead]))[0]

  @functools.cached_property
  def why_uncalibrated(self) -> str:
    """Why no gain over the default is predicted; "" if gains are predicted."""
    if self.evidence is None or self.evidence.calibration is None:
      return "the run has no calibration"
    if self.candidates.default is None:
      return "its default configuration is not known"
    if self.misfit:
      return self.misfit
    if self.unseen_types or set(self.unseen_opcodes).difference(_BOOKKEEPING):
      return "training never saw some of its opcodes or element types"
    if self.prior_weight:
      return "it is unlike the run's training programs, whose gains are known"
    if self.evidence.of(self.operation) is None:
      return f"the run was not validated on programs whose main operation is {self.operation}"
    return ""

  @functools.cached_property
  def operation(self) -> str:
    """The program's main operation, see `operations.main_operation`."""
    return operations.main_operation(graph.node_opcodes(self.program.data.module).tolist())


def rank(program: programs.HloProgram, candidates: candidate_set.Candidates, scores: np.ndarray,
         top_k: int, **known: Any) -> Ranked:
  """Ranks candidates by their scores; equal scores keep their order.

  Args:
    program: the program.
    candidates: its candidates.
    scores: (c,) float, higher = predicted faster.
    top_k: number of best candidates to report.
    **known: further attributes of `Ranked`.
  """
  return Ranked(program, candidates, scores, metrics.ranking(scores), top_k, **known)


def raw_module(ranked: Ranked) -> tuning_pb2.ModuleTuningData:
  """The best candidates as raw data without measurements, best first.

  The default, if it is known, is marked. If it is not among the best it comes last, because
  measurements of a program need it.
  """
  data = tuning_pb2.ModuleTuningData(
      module=ranked.program.data.module, fingerprint=ranked.program.data.fingerprint)
  if ranked.candidates.kind == "layout":
    data.config_index_to_node.extend(ranked.candidates.arrays["node_config_ids"].tolist())
  default = ranked.candidates.default
  chosen = ranked.best + ([] if default is None or default in ranked.best else [default])
  for position in chosen:
    run = data.runs.add()
    run.CopyFrom(ranked.candidates.profile(position))
    run.is_default = position == default
  return data


def raw_bytes(results: Sequence[Ranked]) -> bytes:
  """A raw file: `TuningData` of kernels, or the `ModuleTuningData` of the one program."""
  modules = [raw_module(ranked) for ranked in results]
  message = (tuning_pb2.TuningData(modules=modules)
             if results[0].candidates.kind == "tile" else modules[0])
  return message.SerializeToString(deterministic=True)


def configuration(profile: candidate_set.Profile) -> dict[str, Any]:
  """A configuration for JSON: bounds, or for each node the layouts of its tensors."""
  if profile.HasField("op_config"):
    tile = profile.op_config.tile_size_config
    return {name: list(getattr(tile, name)) for name in tuning.TILE_BOUNDS}
  return {"layouts": [[list(tensor.dims) for tensor in node.tensors]
                      for node in profile.module_config.layout_config.nodes]}


def to_json(ranked: Ranked) -> dict[str, Any]:
  """A program's ranking for JSON."""
  candidates, module = ranked.candidates, ranked.program.data.module
  operation = ranked.operation
  evidence = ranked.evidence
  of_kind = None if evidence is None else evidence.of(operation)
  ranking_json: dict[str, Any] = {
      "program": ranked.program.name, "kind": candidates.kind,
      "instructions": sum(len(computation.instructions) for computation in module.computations),
      "operation": operation,
      "hlo_stage": None if ranked.kernel else stages.of(module).name or None,
      "validation_of_this_operation": None if of_kind is None else dataclasses.asdict(of_kind),
      "candidates": {"count": candidates.count, **candidates.about},
      "rank_of_default": ranked.rank_of_default or None,
      "why_no_gain_is_predicted": ranked.why_uncalibrated or None,
      "weight_of_analytic_cost": ranked.prior_weight,
      "unseen_opcodes": list(ranked.unseen_opcodes), "unseen_types": list(ranked.unseen_types)}
  if ranked.kernel is not None:
    ranking_json["kernel_of"] = {
        "instruction": ranked.kernel.name, "opcode": ranked.kernel.opcode,
        "shape": ranked.kernel.shape, "copies": list(ranked.kernel.copies)}
  named = None
  if candidates.kind == "layout":
    ranking_json["nodes"] = candidates.arrays["node_config_ids"].tolist()
    named = requests.LayoutRequests(module, candidates)
  else:
    tiling = candidates.about.get("tiling")
    ranking_json["tiled_array"] = dataclasses.asdict(requests.tiled_array(
        module, None if tiling is None else str(tiling), ranked.program.source))
  ranking_json["configurations"] = [
      _configuration_json(ranked, place, position, named)
      for place, position in enumerate(ranked.best, 1)]
  return ranking_json


def _configuration_json(ranked: Ranked, place: int, position: int,
                        named: requests.LayoutRequests | None) -> dict[str, Any]:
  candidates = ranked.candidates
  known = ranked.calibrated(position)
  return {
      "rank": place, "tied_with": ranked.shared_rank(position)[1],
      "candidate": candidates.index(position), "score": float(ranked.scores[position]),
      "is_default": position == candidates.default,
      "faster_than_default": None if known is None else {
          "share": known.faster, "interval": list(known.faster_interval),
          "clear": known.is_clear, "candidates": known.candidates, "programs": known.programs},
      "speed_over_default": None if known is None else {
          "median": known.speedup, "interval": list(known.speedup_interval),
          "half": list(known.speedup_half)},
      "ranks_by_member": ranked.member_ranks(position),
      "members_above_default": ranked.members_for(position),
      **({} if named is None else {
          "requests": [request.to_json() for request in named.of(position)]}),
      **configuration(candidates.profile(position))}
