"""Rankings as text that can be acted on: what was predicted, how sure that is, what to change."""

from collections.abc import Sequence
import dataclasses

from tpugraphs_rank import escaping
from tpugraphs_rank import tables
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.candidates import requests
from tpugraphs_rank.hlo import stages
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.metrics import evidence as evidence_lib

_SHOWN_NODES = 3
_SHOWN_COPIES = 3
# The columns in their order. Empty ones are left out.
_TITLES = ("rank", "faster", "speed", "members", "candidate",
           *(name.removesuffix("_bounds") for name in tuning.TILE_BOUNDS), "changes", "")


@dataclasses.dataclass(frozen=True)
class RunFacts:
  """What a reader must know of the run that predicts.

  Attributes:
    name: its directory, or `bundled:NAME`.
    kind: `tile` or `layout`.
    collection, target, hlo_stage: of its training graphs.
    members: number of its networks.
    evidence: how good its predictions were on validation; None if it does not say.
    how_to_calibrate: the command that computes that.
    warnings: why the run may not fit the programs.
  """

  name: str
  kind: str
  collection: str
  target: str
  hlo_stage: str
  members: int
  evidence: evidence_lib.Evidence | None
  how_to_calibrate: str
  warnings: tuple[str, ...] = ()


def heading(run: RunFacts) -> str:
  """The lines above all rankings of a run."""
  trained = (f"{run.name} was trained on {run.collection}: HLO {_stage(run.hlo_stage)}, "
             f"measured on {run.target}")
  lines = ["Predicted, not measured: measure the best before you use one.", trained]
  if run.evidence is None:
    lines.append("It has no validation figures and no calibration, so no gains are predicted; "
                 f"{run.how_to_calibrate} computes them")
  else:
    total = run.evidence.of(evidence_lib.ALL)
    if total is not None:
      lines.append(f"Its {_split(run.evidence)}: {_figures(total)}")
    if run.evidence.calibration is None:
      lines.append(f"It has no calibration, so no gains are predicted: {run.evidence.reason}")
  return "\n".join([*lines, *(f"Warning: {warning}" for warning in run.warnings)])


def _split(evidence: evidence_lib.Evidence) -> str:
  return "validation" if evidence.split == "valid" else evidence.split


def _stage(name: str) -> str:
  return stages.TEXT.get(name, name or "of an unknown stage")


def _figures(figures: evidence_lib.Figures, what: str = "programs") -> str:
  text = f"{figures.programs} {what}"
  if figures.kendall_tau is not None:
    text += f", Kendall's tau {figures.kendall_tau:.2f}"
  if figures.top1_slowdown is not None and figures.top5_slowdown is not None:
    text += (f"; the first choice was {100 * figures.top1_slowdown:.1f} % slower than the fastest, "
             f"the best of five {100 * figures.top5_slowdown:.1f} %")
  return text


def table(ranked: ranking.Ranked) -> str:
  """What is known about a program, and its best candidates, one per line."""
  candidates = ranked.candidates
  named = (requests.LayoutRequests(ranked.program.data.module, candidates)
           if candidates.kind == "layout" else None)
  rows = [_row(ranked, position, named) for position in ranked.best]
  titles = [title for title in _TITLES if any(row.get(title) for row in rows)]
  align = "".join(tables.RIGHT if title in ("rank", "candidate") else tables.LEFT
                  for title in titles)
  text = tables.text(titles, [[row.get(title, "") for title in titles] for row in rows], align,
                     rule=False).rstrip()
  default = ("" if candidates.default is None else
             f"; the default has rank {ranked.shared_rank(candidates.default)[0]}")
  best = (f"best {len(ranked.best)} of {candidates.count} "
          f"candidate{'s' * (candidates.count > 1)}{default}")
  return "\n".join([f"{_name(ranked)}: {best}", *_about(ranked), text])


def _name(ranked: ranking.Ranked) -> str:
  kernel = ranked.kernel
  if kernel is None:
    return escaping.shown(ranked.program.name)
  more = len(kernel.copies) - 1
  others = ", ".join(map(escaping.shown, kernel.copies[1:1 + _SHOWN_COPIES]))
  copies = "" if not more else f" (and {more} equal: {others}{', ...' * (more > _SHOWN_COPIES)})"
  return f"{escaping.shown(kernel.name)} {kernel.shape}{copies}"


def _about(ranked: ranking.Ranked) -> list[str]:
  """What the program is, and how good predictions for such programs were."""
  module, candidates = ranked.program.data.module, ranked.candidates
  count = sum(len(computation.instructions) for computation in module.computations)
  stage = "" if ranked.kernel else stages.of(module).name
  operation = ranked.operation
  what = f"{count} instruction{'s' * (count > 1)}, main operation {operation}"
  lines = [f"  {what}, HLO {_stage(stage)}" if stage else f"  {what}"]
  if ranked.evidence is not None:
    figures = ranked.evidence.of(operation)
    if figures is not None:
      lines.append(f"  validation of such programs: {_figures(figures, f'with {operation}')}")
  for noun, unseen in (("opcodes", ranked.unseen_opcodes), ("element types", ranked.unseen_types)):
    if unseen:
      lines.append(f"  training never saw these {noun}: {', '.join(unseen)}; the ranking may be no "
                   "better than chance")
  if ranked.prior_weight:
    lines.append(f"  unlike the training programs: the ranking leans on an analytic cost of tiles "
                 f"({100 * ranked.prior_weight:.0f} % of the score; --prior=none ranks without it)")
  if candidates.kind == "tile":
    tiling = candidates.about.get("tiling")
    tiled = requests.tiled_array(
        module, None if tiling is None else str(tiling), ranked.program.source)
    lines.append(f"  tiles of {tiled}; sides {tiled.unit}")
  if ranked.why_uncalibrated:
    lines.append(f"  no gain over the default is predicted: {ranked.why_uncalibrated}")
  return lines


def _row(ranked: ranking.Ranked, position: int, named: requests.LayoutRequests | None
         ) -> dict[str, str]:
  """The cells of a candidate by the title of their column."""
  candidates = ranked.candidates
  rank, others = ranked.shared_rank(position)
  row = {"rank": f"{rank}=" if others else str(rank)}
  known = ranked.calibrated(position)
  is_default = position == candidates.default
  if known is not None:
    row["faster"] = _share(known.faster) if known.is_clear else "unclear"
    row["speed"] = (f"{known.speedup:.2f}x ({known.speedup_half[0]:.2f} to "
                    f"{known.speedup_half[1]:.2f})" if known.is_clear else "")
  elif is_default and not ranked.why_uncalibrated:
    row["faster"], row["speed"] = "default", "1.00x"
  if ranked.members is not None:
    row["members"] = _members(ranked, position)
  if candidates.indices is not None:
    row["candidate"] = str(candidates.index(position))
  if named is None:
    config = ranking.configuration(candidates.profile(position))
    for name in tuning.TILE_BOUNDS:
      row[name.removesuffix("_bounds")] = "x".join(map(str, config[name])) or "-"
    row[""] = "the default" if is_default else ""
  else:
    row["changes"] = "none: the default" if is_default else requests.text(
        named.of(position), _SHOWN_NODES)
  return row


def _share(share: float) -> str:
  """A share of ten, which does not claim certainty."""
  tenths = round(10 * share)
  return {0: "under 1 in 10", 10: "over 9 in 10"}.get(tenths, f"{tenths} in 10")


def _members(ranked: ranking.Ranked, position: int) -> str:
  places = ranked.member_ranks(position)
  span = str(places[0]) if min(places) == max(places) else f"{min(places)}-{max(places)}"
  above = ranked.members_for(position)
  if above is None or position == ranked.candidates.default:
    return span
  return f"{span}, {above} of {len(places)} faster"


def legend(results: Sequence[ranking.Ranked]) -> str:
  """What the columns mean that the tables of some rankings have; "" if they explain themselves."""
  lines = []
  if any(ranked.shared_rank(position)[1] for ranked in results for position in ranked.best):
    lines.append("=        equal scores: the model does not distinguish these")
  predicted = next((ranked for ranked in results if not ranked.why_uncalibrated), None)
  if predicted is not None:
    assert predicted.evidence is not None and predicted.evidence.calibration is not None
    calibration = predicted.evidence.calibration
    lines += [
        f"faster   of the {_split(predicted.evidence)} configurations with such a lead over the "
        "default, how many were faster than it;",
        "         unclear: the model cannot tell them from the default",
        "speed    the default's runtime divided by theirs: the median, and the range of half of "
        f"them ({calibration.candidates} configurations of {calibration.programs} programs in all)"]
  members = next((ranked.members for ranked in results if ranked.members is not None), None)
  if members is not None:
    known = any(ranked.candidates.default is not None for ranked in results)
    lines.append(f"members  the ranks that the run's {len(members)} networks give it" + (
        "; how many of them place it above the default" if known else ""))
  return "\n".join(lines)
