"""The quality gates: a kernel or program is kept if its passes agree and its runtimes differ."""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

import numpy as np

from tpugraphs_rank import errors

REASONS = ("configurations", "tau", "ratio")


@dataclasses.dataclass(frozen=True)
class Limits:
  """The minimum that a kernel or program must reach.

  Attributes:
    tau: Kendall tau-b between the two passes.
    ratio: runtime of the slowest over that of the fastest configuration, as means of the passes.
    configurations: number of configurations, after mismatches and duplicates are dropped.
  """

  tau: float
  ratio: float
  configurations: int


TILE = Limits(tau=0.8, ratio=2.0, configurations=24)
# Copies for a change of layout are only a part of a program, so the slowest configuration may be
# close to the fastest.
LAYOUT = Limits(tau=0.7, ratio=1.0, configurations=40)

# Synthetic programs are measured under fewer configurations, and smaller differences count as long
# as both passes agree about them.
SYNTHETIC_TILE = Limits(tau=0.8, ratio=1.2, configurations=12)
SYNTHETIC_LAYOUT = Limits(tau=0.7, ratio=1.0, configurations=24)


@dataclasses.dataclass(frozen=True)
class Quality:
  """The figures that the gates check.

  Attributes:
    configurations: number of configurations.
    tau: Kendall tau-b between the passes; with more than two passes, the lowest of any pair.
    ratio: runtime of the slowest over that of the fastest configuration.
    failed_gate: the first gate that the kernel fails, or "" if it is kept.
  """

  configurations: int
  tau: float
  ratio: float
  failed_gate: str


def kendall_tau_b(a: np.ndarray, b: np.ndarray) -> float:
  """(concordant - discordant pairs) / sqrt(untied pairs of a * untied pairs of b), (c,) each.

  The time is quadratic: this is meant for the few dozen configurations of a kernel or program.
  The result is 0 if all values of one side are equal.
  """
  first = np.sign(np.subtract.outer(a, a))
  second = np.sign(np.subtract.outer(b, b))
  scale = np.sqrt(float((first * first).sum()) * float((second * second).sum()))
  return float((first * second).sum() / scale) if scale else 0.0


def assess(passes: np.ndarray, limits: Limits) -> Quality:
  """Applies the gates to the runtimes of one kernel or program, (passes, c), in nanoseconds."""
  passes = np.asarray(passes, np.float64)
  count = passes.shape[1]
  if count < 2:
    return Quality(count, 0.0, 1.0, "configurations")
  tau = min(kendall_tau_b(passes[i], passes[j])
            for i in range(len(passes)) for j in range(i + 1, len(passes)))
  means = passes.mean(axis=0)
  ratio = float(means.max() / means.min())
  failed = ""
  if count < limits.configurations:
    failed = "configurations"
  elif tau < limits.tau:
    failed = "tau"
  elif ratio < limits.ratio:
    failed = "ratio"
  return Quality(count, tau, ratio, failed)


def assess_all(items: Mapping[str, Mapping[str, np.ndarray]], limits: Limits, source: str
               ) -> tuple[dict[str, Quality], list[str]]:
  """Applies the gates to all kernels or programs.

  Args:
    items: arrays of each stem, with `config_runtime_passes`.
    limits: the gates.
    source: what the items are and where they come from, for the message.

  Returns:
    The quality of each stem, and the stems that pass the gates.

  Raises:
    DataError: none passes the gates.
  """
  qualities = {stem: assess(arrays["config_runtime_passes"], limits)
               for stem, arrays in items.items()}
  kept = [stem for stem in items if not qualities[stem].failed_gate]
  if not kept:
    raise errors.DataError(f"none of the {len(items)} {source} passes the gates")
  return qualities, kept


def count_dropped(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
  """Counts the configurations that measuring dropped, by reason.

  Args:
    entries: entries of a measurement report.
  """
  dropped: collections.Counter[str] = collections.Counter()
  for entry in entries:
    dropped.update(entry["dropped"])
  return dict(dropped)


def count_by_family(qualities: Iterable[tuple[str, Quality]]) -> dict[str, dict[str, int]]:
  """Counts, for each family, what was measured, what failed each gate, and what was kept.

  Args:
    qualities: (family, quality) of everything that was measured.
  """
  table: dict[str, dict[str, int]] = {}
  for family, quality in qualities:
    row = table.setdefault(
        family, {"measured": 0, **{f"lost_to_{reason}": 0 for reason in REASONS}, "kept": 0})
    row["measured"] += 1
    row[f"lost_to_{quality.failed_gate}" if quality.failed_gate else "kept"] += 1
  return dict(sorted(table.items()))
