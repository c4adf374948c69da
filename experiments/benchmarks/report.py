"""The benchmark's tables and plot."""

from typing import Any

from matplotlib import figure

from tpugraphs_rank import files
from tpugraphs_rank import tables

_AXES = ("nodes", "configs", "coverage", "depth")


def tables_of(results: dict[str, Any]) -> list[str]:
  """Markdown tables of the measured parts."""
  blocks = []
  if "speedups" in results:
    header = ["case", "dependent after 1, 2 convolutions", "train", "score", "first list",
              "batch / step", "train: share of limit", "first list: share of limit"]
    shown = lambda entry: f"{100 * entry['share']:.0f} % ({entry['binds']})"
    blocks.append("Speedup over plain execution\n\n" + tables.markdown(header, [
        [name, " / ".join(f"{100 * share:.0f} %" for share in case["shares"][1:]),
         f"{case['train_speedup']:.1f}", f"{case['score_speedup']:.1f}",
         f"{case['score_speedup_first_list']:.1f}", f"{case['batch_share_of_train_step']:.2f}",
         shown(case["times"]["train_exact"]), shown(case["times"]["score_exact"])]
        for name, case in results["speedups"].items()]))
  if "streaming" in results:
    blocks.append("Many configurations, 10,000 nodes\n\n" + _plain(results["streaming"]))
  if "memory" in results:
    blocks.append("Memory\n\n" + _plain(results["memory"]))
  if "packing" in results:
    blocks.append(f"Packing and reading, {results['packing']['part']}\n\n" + _plain(
        results["packing"]["shapes"]))
  if "recipes" in results:
    blocks.append("Training of the recipes without validation\n\n" + _plain(results["recipes"]))
  if "growth" in results:
    rows = [{key: value if key in _AXES else "" if value is None else f"{1000 * value:.1f} ms"
             for key, value in row.items() if not key.endswith("_wall")}
            for row in results["growth"]]
    blocks.append("Growth, CPU time\n\n" + _plain(rows))
  return blocks


def _plain(rows: list[dict[str, Any]]) -> str:
  """A table of rows with the same keys; rates are rounded to whole numbers."""
  cell = lambda key, value: (f"{value:,.0f}" if "_per_" in key else
                             f"{value:.2f}" if isinstance(value, float) else str(value))
  return tables.markdown(list(rows[0]), [
      [cell(key, value) for key, value in row.items()] for row in rows])


def tables_text(results: dict[str, Any]) -> str:
  """All tables as one text."""
  return "\n\n".join(tables_of(results)) + "\n"


def speedup_table(results: dict[str, Any]) -> str:
  """The published table of speedups over plain execution."""
  header = ["nodes reached after 1 / 2 convolutions", "training step", "16 lists of a program",
            "the first list", "each further list"]
  ratios = results["speedup_over_plain"]
  rows = []
  for name in ratios["train"]:
    shares = results["speedups"][f"{name}_width32"]["shares"]
    rows.append([" / ".join(f"{100 * share:.0f} %" for share in shares[1:]), *(
        f"{ratios[key][name]:.1f}x" for key in (
            "train", "inference", "inference_first_list", "inference_next_list"))])
  return tables.markdown(header, rows)


def streaming_table(results: dict[str, Any]) -> str:
  """The published table of configurations per CPU second, and of peak memory."""
  header = ["nodes", "configurations", "method", "per CPU second", "peak memory"]
  rows = [[f"{10_000:,}", f"{row['count']:,} {row['configurations']}", way,
           f"{row[f'{way}_per_cpu_s']:,.0f}", ""]
          for row in results["streaming"] if row["count"] == 1_000 for way in ("exact", "distinct")]
  rows += [[f"{row['nodes']:,}", f"{row['count']:,} {row['configurations']}", "`Run.score`",
            f"{row['per_cpu_s']:,.0f}", f"{row['peak_gb']:.2f} GB"] for row in results["memory"]]
  return tables.markdown(header, rows)


def plot(path: files.PathLike, rows: list[dict[str, Any]]) -> None:
  """Plots CPU seconds of a training step and of scoring a list over each varied quantity."""
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
