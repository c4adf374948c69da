"""Which measured kernels and programs are kept: passes that agree, and something to rank."""

from collections.abc import Iterable
import dataclasses

import numpy as np

REASONS = ("configurations", "tau", "ratio")


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is asked of a kernel or program.

  Attributes:
    tau: Kendall tau-b between the two passes, at least.
    ratio: slowest over fastest configuration, by the mean of the passes, at least.
    configurations: after mismatches and equal programs are dropped, at least.
  """

  tau: float
  ratio: float
  configurations: int


TILE = Limits(tau=0.8, ratio=2.0, configurations=24)
# Relayout copies are part of a whole program, so that the slowest may be near the fastest.
LAYOUT = Limits(tau=0.7, ratio=1.0, configurations=40)

# Of made programs fewer configurations are measured; any difference that both passes see counts.
MADE = Limits(tau=0.8, ratio=1.2, configurations=12)
MADE_LAYOUT = Limits(tau=0.7, ratio=1.0, configurations=24)


@dataclasses.dataclass(frozen=True)
class Quality:
  """What the gates look at.

  Attributes:
    configurations: how many are left.
    tau: Kendall tau-b between the passes (the lowest pair, where there are more than two).
    ratio: slowest over fastest.
    lost: the first gate that the kernel fails, or "" when it is kept.
  """

  configurations: int
  tau: float
  ratio: float
  lost: str


def kendall_tau_b(a: np.ndarray, b: np.ndarray) -> float:
  """(concordant - discordant pairs) / sqrt(untied pairs of a * untied pairs of b), (c,) each.

  Quadratic, for the few dozen configurations of a kernel or program; 0 where one side has nothing
  but ties.
  """
  first = np.sign(np.subtract.outer(a, a))
  second = np.sign(np.subtract.outer(b, b))
  scale = np.sqrt(float((first * first).sum()) * float((second * second).sum()))
  return float((first * second).sum() / scale) if scale else 0.0


def judge(passes: np.ndarray, limits: Limits) -> Quality:
  """Judges one kernel or program by its runtimes of every pass, (passes, c), in nanoseconds."""
  passes = np.asarray(passes, np.float64)
  count = passes.shape[1]
  if count < 2:
    return Quality(count, 0.0, 1.0, "configurations")
  tau = min(kendall_tau_b(passes[i], passes[j])
            for i in range(len(passes)) for j in range(i + 1, len(passes)))
  means = passes.mean(axis=0)
  ratio = float(means.max() / means.min())
  lost = ""
  if count < limits.configurations:
    lost = "configurations"
  elif tau < limits.tau:
    lost = "tau"
  elif ratio < limits.ratio:
    lost = "ratio"
  return Quality(count, tau, ratio, lost)


def losses(judged: Iterable[tuple[str, Quality]]) -> dict[str, dict[str, int]]:
  """Family -> measured, lost to each gate, kept.

  Args:
    judged: (family, quality) of everything that was measured.
  """
  table: dict[str, dict[str, int]] = {}
  for family, quality in judged:
    row = table.setdefault(
        family, {"measured": 0, **{f"lost_to_{reason}": 0 for reason in REASONS}, "kept": 0})
    row["measured"] += 1
    row[f"lost_to_{quality.lost}" if quality.lost else "kept"] += 1
  return dict(sorted(table.items()))
