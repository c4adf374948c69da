"""The best candidates of a program: as a table, as JSON and as raw data to be measured."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank import tables
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2

_SHOWN_NODES = 3


@dataclasses.dataclass(frozen=True)
class Ranked:
  """A program's candidates in their predicted order.

  Attributes:
    program: the program.
    candidates: its candidates.
    scores: (c,) float, higher = predicted faster.
    order: (c,) positions, the best first.
    top_k: number of best candidates to report.
  """

  program: programs.HloProgram
  candidates: candidate_set.Candidates
  scores: np.ndarray
  order: np.ndarray
  top_k: int

  @property
  def best(self) -> list[int]:
    """Positions of the best candidates, at most `top_k`."""
    return [int(position) for position in self.order[:self.top_k]]

  @property
  def rank_of_default(self) -> int:
    """The rank of the default, from 1; 0 if it is not known."""
    default = self.candidates.default
    return 0 if default is None else int(np.flatnonzero(self.order == default)[0]) + 1


def rank(program: programs.HloProgram, candidates: candidate_set.Candidates, scores: np.ndarray,
         top_k: int) -> Ranked:
  """Ranks candidates by their scores; equal scores keep their order."""
  return Ranked(program, candidates, scores, metrics.ranking(scores), top_k)


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
  candidates = ranked.candidates
  ranking_json: dict[str, Any] = {
      "program": ranked.program.name, "kind": candidates.kind,
      "candidates": {"count": candidates.count, **candidates.about},
      "rank_of_default": ranked.rank_of_default or None}
  if candidates.kind == "layout":
    ranking_json["nodes"] = candidates.arrays["node_config_ids"].tolist()
  ranking_json["configurations"] = [
      {"rank": place, "candidate": candidates.index(position),
       "score": float(ranked.scores[position]), "is_default": position == candidates.default,
       **configuration(candidates.profile(position))}
      for place, position in enumerate(ranked.best, 1)]
  return ranking_json


def table(ranked: Ranked) -> str:
  """The best candidates as text, one per line."""
  candidates = ranked.candidates
  header = ["rank", "score", "candidate", *_titles(candidates), ""]
  rows: list[list[str]] = []
  for place, position in enumerate(ranked.best, 1):
    mark = "default" if position == candidates.default else ""
    rows.append([str(place), f"{ranked.scores[position]:.4f}", str(candidates.index(position)),
                 *_shown(candidates, position), mark])
  align = tables.RIGHT * 3 + tables.LEFT * (len(header) - 3)
  default = (f"; the default has rank {ranked.rank_of_default}" if ranked.rank_of_default else "")
  head = f"{ranked.program.name}: best {len(ranked.best)} of {candidates.count} candidates{default}"
  return f"{head}\n{tables.text(header, rows, align, rule=False).rstrip()}"


def _titles(candidates: candidate_set.Candidates) -> list[str]:
  if candidates.kind == "tile":
    return [name.removesuffix("_bounds") for name in tuning.TILE_BOUNDS]
  return ["requests", "node: output/input/kernel"]


def _shown(candidates: candidate_set.Candidates, position: int) -> list[str]:
  config = configuration(candidates.profile(position))
  if candidates.kind == "tile":
    return ["x".join(map(str, bounds)) or "-" for bounds in config.values()]
  requests = [
      f"{node}: " + "/".join("".join(map(str, layout)) for layout in tensors)
      for node, tensors in zip(candidates.arrays["node_config_ids"].tolist(), config["layouts"])
      if any(tensors)]
  count = sum(bool(layout) for tensors in config["layouts"] for layout in tensors)
  more = len(requests) - _SHOWN_NODES
  rest = f"  and {more} more node{'s' * (more > 1)}" if more > 0 else ""
  return [str(count), ("  ".join(requests[:_SHOWN_NODES]) or "-") + rest]
