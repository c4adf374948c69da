"""Layout by Graphviz's `dot`, on machines that have it."""

import shutil
import subprocess

import numpy as np

_POINTS = 72.0  # `dot` measures in inches.
_TIMEOUT = 60


def available() -> bool:
  """Whether `dot` is on the PATH."""
  return shutil.which("dot") is not None


def arrange(edges: np.ndarray, widths: list[float], heights: list[float]
            ) -> tuple[np.ndarray, list[np.ndarray]] | None:
  """Like `layered.arrange`; None if `dot` fails or takes too long. Lines are Bézier splines."""
  lines = ["digraph {", "node [shape=box fixedsize=true];", "rankdir=TB; ranksep=0.45;",
           "edge [dir=none];"]
  lines += [f"{node} [width={width / _POINTS:.4f} height={height / _POINTS:.4f}];"
            for node, (width, height) in enumerate(zip(widths, heights))]
  lines += [f"{producer} -> {consumer};" for producer, consumer in edges.tolist()]
  try:
    done = subprocess.run(["dot", "-Tplain"], input="\n".join([*lines, "}"]), text=True,
                          capture_output=True, timeout=_TIMEOUT, check=True)
  except (OSError, subprocess.SubprocessError):
    return None
  centres = np.zeros([len(widths), 2])
  by_edge: dict[tuple[int, int], list[np.ndarray]] = {}
  height = 0.0
  for line in done.stdout.splitlines():
    words = line.split()
    if words[0] == "graph":
      height = float(words[3])
    elif words[0] == "node":
      centres[int(words[1])] = (float(words[2]), height - float(words[3]))
    elif words[0] == "edge":
      numbers = np.array(words[4:4 + 2 * int(words[3])], float).reshape(-1, 2)
      numbers[:, 1] = height - numbers[:, 1]
      by_edge.setdefault((int(words[1]), int(words[2])), []).append(numbers * _POINTS)
  routes = [by_edge[producer, consumer].pop() for producer, consumer in edges.tolist()]
  return centres * _POINTS, routes
