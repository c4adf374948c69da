"""The benchmark's tables and plot."""

from typing import Any, Dict, List

from matplotlib import figure

from tpugraphs_rank import files
from tpugraphs_rank.evaluation import tables


def tables_of(found: Dict[str, Any]) -> List[str]:
  """Markdown tables of the parts that were measured."""
  blocks = []
  if "speedups" in found:
    header = ["case", "dependent after 1, 2 convolutions", "train", "score", "first list",
              "batch / step", "of matmul ceiling"]
    blocks.append("Times faster than plain\n\n" + tables.markdown(header, [
        [name, " / ".join(f"{100 * share:.0f} %" for share in case["shares"][1:]),
         f"{case['train_speedup']:.1f}", f"{case['score_speedup']:.1f}",
         f"{case['score_speedup_first_list']:.1f}", f"{case['batch_share_of_train_step']:.2f}",
         f"{100 * case['share_of_matmul_ceiling']:.0f} %"]
        for name, case in found["speedups"].items()]))
  if "streaming" in found:
    blocks.append("Configurations a CPU second, 10,000 nodes\n\n" + _plain(
        found["streaming"], ("exact_per_cpu_s", "distinct_per_cpu_s", "chosen_per_cpu_s")))
  if "memory" in found:
    blocks.append("Memory\n\n" + _plain(found["memory"], ("per_cpu_s",)))
  if "recipes" in found:
    blocks.append("Training of the recipes without validation\n\n" + _plain(found["recipes"]))
  if "growth" in found:
    rows = [{key: f"{1000 * value:.1f} ms" if key.split("_")[0] in ("train", "score", "batch")
             else value for key, value in row.items()} for row in found["growth"]]
    blocks.append("Growth, CPU time\n\n" + _plain(rows))
  return blocks


def _plain(rows: List[Dict[str, Any]], rates=()) -> str:
  """A table of rows of equal keys; rates as whole numbers."""
  cell = lambda key, value: (f"{value:,.0f}" if key in rates else
                             f"{value:.2f}" if isinstance(value, float) else str(value))
  return tables.markdown(list(rows[0]), [
      [cell(key, value) for key, value in row.items()] for row in rows])


def tables_text(found: Dict[str, Any]) -> str:
  """All tables."""
  return "\n\n".join(tables_of(found)) + "\n"


def plot(path: files.PathLike, rows: List[Dict[str, Any]]) -> None:
  """CPU seconds of a training step and of scoring a list, over what grows."""
  base = rows[0]
  axes = ("nodes", "configs", "coverage", "depth")
  drawing = figure.Figure(figsize=(14, 6.5), layout="constrained")
  grid = drawing.subplots(2, len(axes), squeeze=False)
  for column, axis in enumerate(axes):
    others = [name for name in axes if name != axis]
    chosen = sorted((row for row in rows if all(row[name] == base[name] for name in others)),
                    key=lambda row: row[axis])
    for line, (task, ways) in enumerate((
        ("train", ("train_plain", "train_exact")),
        ("score", ("score_plain", "score_exact", "score_exact_next")))):
      panel = grid[line][column]
      for way in ways:
        panel.plot([row[axis] for row in chosen], [row[way] for row in chosen], "o-", label=way)
      panel.set(xlabel=axis, ylabel=f"CPU seconds, {task}", yscale="log")
      if axis in ("nodes", "configs"):
        panel.set_xscale("log")
      panel.legend(fontsize=7)
  with files.atomic_write(path) as file:
    drawing.savefig(file, format="png", dpi=120)
