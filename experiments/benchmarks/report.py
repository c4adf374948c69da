"""The benchmark's tables and plot."""

from typing import Any

from matplotlib import figure

from tpugraphs_rank import files
from tpugraphs_rank import tables

_AXES = ("nodes", "configs", "coverage", "depth")


def tables_of(found: dict[str, Any]) -> list[str]:
  """Markdown tables of the parts that were measured."""
  blocks = []
  if "speedups" in found:
    header = ["case", "dependent after 1, 2 convolutions", "train", "score", "first list",
              "batch / step", "train: share of limit", "first list: share of limit"]
    shown = lambda entry: f"{100 * entry['share']:.0f} % ({entry['binds']})"
    blocks.append("Times faster than plain\n\n" + tables.markdown(header, [
        [name, " / ".join(f"{100 * share:.0f} %" for share in case["shares"][1:]),
         f"{case['train_speedup']:.1f}", f"{case['score_speedup']:.1f}",
         f"{case['score_speedup_first_list']:.1f}", f"{case['batch_share_of_train_step']:.2f}",
         shown(case["times"]["train_exact"]), shown(case["times"]["score_exact"])]
        for name, case in found["speedups"].items()]))
  if "streaming" in found:
    blocks.append("Many configurations, 10,000 nodes\n\n" + _plain(found["streaming"]))
  if "memory" in found:
    blocks.append("Memory\n\n" + _plain(found["memory"]))
  if "packing" in found:
    blocks.append(f"Packing and reading, {found['packing']['part']}\n\n" + _plain(
        found["packing"]["shapes"]))
  if "recipes" in found:
    blocks.append("Training of the recipes without validation\n\n" + _plain(found["recipes"]))
  if "growth" in found:
    rows = [{key: value if key in _AXES else "" if value is None else f"{1000 * value:.1f} ms"
             for key, value in row.items() if not key.endswith("_wall")}
            for row in found["growth"]]
    blocks.append("Growth, CPU time\n\n" + _plain(rows))
  return blocks


def _plain(rows: list[dict[str, Any]]) -> str:
  """A table of rows of equal keys; rates as whole numbers."""
  cell = lambda key, value: (f"{value:,.0f}" if "_per_" in key else
                             f"{value:.2f}" if isinstance(value, float) else str(value))
  return tables.markdown(list(rows[0]), [
      [cell(key, value) for key, value in row.items()] for row in rows])


def tables_text(found: dict[str, Any]) -> str:
  """All tables."""
  return "\n\n".join(tables_of(found)) + "\n"


def speedup_table(results: dict[str, Any]) -> str:
  """For the README: times faster than the plain formulation, and its further figures."""
  header = ["reached after 1 / 2 convolutions", "training step", "16 lists of a program",
            "the first of them", "each further one"]
  ratios = results["speedup_over_plain"]
  rows = []
  for name in ratios["train"]:
    shares = results["speedups"][f"{name}_width32"]["shares"]
    rows.append([" / ".join(f"{100 * share:.0f} %" for share in shares[1:]), *(
        f"{ratios[key][name]:.1f}x" for key in (
            "train", "inference", "inference_first_list", "inference_next_list"))])
  return tables.markdown(header, rows)


def streaming_table(results: dict[str, Any]) -> str:
  """For the README: configurations a CPU second, and peaks of memory."""
  header = ["nodes", "configurations", "way", "a CPU second", "peak of memory"]
  rows = [[f"{10_000:,}", f"{row['count']:,} {row['configurations']}", way,
           f"{row[f'{way}_per_cpu_s']:,.0f}", ""]
          for row in results["streaming"] if row["count"] == 1_000 for way in ("exact", "distinct")]
  rows += [[f"{row['nodes']:,}", f"{row['count']:,} {row['configurations']}", "`Run.score`",
            f"{row['per_cpu_s']:,.0f}", f"{row['peak_gb']:.2f} GB"] for row in results["memory"]]
  return tables.markdown(header, rows)


def plot(path: files.PathLike, rows: list[dict[str, Any]]) -> None:
  """CPU seconds of a training step and of scoring a list, over what grows."""
  base = rows[0]
  drawing = figure.Figure(figsize=(14, 6.5), layout="constrained")
  grid = drawing.subplots(2, len(_AXES), squeeze=False)
  for column, axis in enumerate(_AXES):
    others = [name for name in _AXES if name != axis]
    chosen = sorted((row for row in rows if all(row[name] == base[name] for name in others)),
                    key=lambda row: row[axis])
    for line, (task, ways) in enumerate((
        ("train", ("train_plain", "train_exact")),
        ("score", ("score_plain", "score_exact", "score_exact_next", "score_distinct")))):
      panel = grid[line][column]
      for way in ways:
        points = [(row[axis], row[way]) for row in chosen if row[way] is not None]
        panel.plot(*zip(*points), "o-", label=way)
      panel.set(xlabel=axis, ylabel=f"CPU seconds, {task}", yscale="log")
      if axis in ("nodes", "configs"):
        panel.set_xscale("log")
      panel.legend(fontsize=7)
  with files.atomic_write(path) as file:
    drawing.savefig(file, format="png", dpi=120)
