"""One self-contained HTML page on one or several runs: metrics, curves, and the worst graphs."""

from collections.abc import Callable, Mapping, Sequence
import math
import pathlib
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank.data import splits
from tpugraphs_rank.drawing import scenes
from tpugraphs_rank.drawing import views
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import charts
from tpugraphs_rank.evaluation import comparison as comparison_lib
from tpugraphs_rank.evaluation import comparison_files
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.evaluation import run_files
from tpugraphs_rank.training import run_directory

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_WORST = 4
_DRAWN_NODES = 40
_MAX_K = 100
_KS = (1, 2, 5, 10, 20, 50, 100)
# Points of a chart beyond this number are thinned out.
_MAX_POINTS = 600


def write(path: files.PathLike, comparison: comparison_lib.Comparison) -> None:
  """Writes the report of a comparison.

  Raises:
    OutputError: the file cannot be written.
  """
  files.write_text(path, render(comparison))


def render(comparison: comparison_lib.Comparison) -> str:
  """The HTML of a comparison's report. The first model is the one in focus."""
  task = comparison.task
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True,
      lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  model = comparison.models[0]
  environment_of_runs = run_directory.environment()
  commit = environment_of_runs["commit"]
  notes = [f"{comparison.incomplete}."] if comparison.incomplete else []
  if comparison.chosen_on_split:
    notes.append(f"{', '.join(comparison.chosen_on_split)}: checkpoints and hyperparameters were "
                 "selected on this split, which makes them look better.")
  return environment.get_template("report.html").render(
      title=f"{', '.join(comparison.models)} on {task.collection.name}",
      subtitle=f"{task.split} split: {task.held_back}; {len(task.programs)} graphs with "
      f"{sum(len(program.indices) for program in task.programs):,} configurations; target "
      f"{task.collection.target}",
      notes=notes, model=model, level=f"{100 * bootstrap.LEVEL:.0f} %",
      tiles=_tiles(comparison, model), tau_chart=_safe(_tau_chart(comparison)),
      slowdown_chart=_safe(_slowdown_chart(comparison)), metric_tables=_metric_tables(comparison),
      curves=_curves(comparison), families=_safe(_families(comparison)),
      graphs=_safe(_graphs(comparison)), worst=_worst(comparison, model),
      settings=_settings(comparison),
      footer="Written by tpugraphs-rank report" + (
          "." if commit == "unknown" else f", version {commit}."))


def _safe(fragment: str) -> markupsafe.Markup:
  """Marks HTML that this module has written and escaped."""
  return markupsafe.Markup(fragment)


def _columns(comparison: comparison_lib.Comparison) -> list[str]:
  return [result_tables.FIGURES[name] for name in comparison_lib.shown(comparison.task.collection)]


def _title(column: str) -> str:
  names = {column: name for name, column in result_tables.FIGURES.items()}
  return result_tables.TITLES[names[column]]


def _shown(value: float, column: str) -> str:
  if not math.isfinite(value):
    return "-"
  scale, digits, unit = result_tables.style(column)
  return f"{scale * value:.{digits}f}{unit}"


def _interval(frames: Sequence[pd.DataFrame], column: str) -> bootstrap.Interval | None:
  values = bootstrap.seed_mean(frames, column)
  return bootstrap.mean_interval(values.to_numpy()) if values.notna().any() else None


def _ends(interval: bootstrap.Interval, column: str) -> str:
  if interval.low is None or interval.high is None:
    return "one graph: no interval" if interval.n == 1 else "no interval"
  return f"{_shown(interval.low, column)} to {_shown(interval.high, column)}"


def _tiles(comparison: comparison_lib.Comparison, model: str) -> list[dict[str, str]]:
  tiles = []
  for column in _columns(comparison):
    interval = _interval(comparison.frames[model], column)
    if interval is not None:
      tiles.append({"name": f"{model}: {_title(column)}" if len(comparison.models) > 1
                    else _title(column), "value": _shown(interval.mean, column),
                    "interval": _ends(interval, column)})
  return tiles


def _tau_chart(comparison: comparison_lib.Comparison) -> str:
  intervals = {name: _interval(frames, "kendall_tau")
               for name, frames in comparison.frames.items()}
  known = {name: interval for name, interval in intervals.items() if interval is not None}
  # A single graph has no interval.
  lows = [each.mean if each.low is None else each.low for each in known.values()]
  highs = [each.mean if each.high is None else each.high for each in known.values()]
  return charts.interval_chart(
      list(known), [each.mean for each in known.values()], lows, highs,
      charts.Axis("mean tau over graphs"))


def _slowdown_chart(comparison: comparison_lib.Comparison) -> str:
  runtimes = [per_graph.runtimes_of(program) for program in comparison.task.programs]
  largest = min(_MAX_K, max((len(values) for values in runtimes), default=1))
  series = []
  for colour, (name, seeds) in enumerate(comparison.scores_with_ties.items()):
    lines = np.array([
        np.mean([metrics.slowdown_curve(truth, scores, largest)
                 for truth, scores in zip(runtimes, of_seed)], axis=0) for of_seed in seeds])
    several = len(lines) > 1
    series.append(charts.Series(
        name, np.arange(1, largest + 1), lines.mean(axis=0), colour,
        low=lines.min(axis=0) if several else None, high=lines.max(axis=0) if several else None))
  return charts.line_chart(
      series, charts.Axis("K, number of configurations tried", log=True, ticks=_KS),
      charts.Axis("mean slowdown", log=True, floor=1e-4, percent=True))


def _metric_rows(comparison: comparison_lib.Comparison, columns: Sequence[str],
                 select: Callable[[pd.DataFrame], pd.DataFrame]) -> list[dict[str, Any]]:
  """One row per ranker: the means of columns over the graphs of a part, with intervals."""
  rows = []
  for name, frames in comparison.frames.items():
    cells = [name]
    for column in columns:
      interval = _interval([select(frame) for frame in frames], column)
      cells.append("-" if interval is None else _safe(
          f"{_shown(interval.mean, column)}<small>{_ends(interval, column)}</small>"))
    rows.append({"cells": cells, "model": name in comparison.models})
  return rows


def _metric_tables(comparison: comparison_lib.Comparison) -> list[dict[str, Any]]:
  tables = []
  parts = comparison.parts
  for suffix, select in parts.items():
    first = select(next(iter(comparison.frames.values()))[0])
    part = f", {comparison_files.PART_TITLES[suffix]}" if len(parts) > 1 else ""
    columns = _columns(comparison)
    tables.append({"title": f"{len(first)} graphs{part}", "header": ["", *map(_title, columns)],
                   "rows": _metric_rows(comparison, columns, select), "note": ""})
    gains = [column for column in comparison_lib.gains_shown(comparison.task.collection)
             if column in first and first[column].notna().any()]
    if gains:
      tables.append({"title": f"Measuring the best-scored configurations{part}",
                     "header": ["", *map(_title, gains)],
                     "rows": _metric_rows(comparison, gains, select),
                     "note": f"{'; '.join(comparison.gain_notes(select))}."})
    for model in comparison.models:
      others = [name for name in comparison.frames if name != model and (
          name not in comparison.models or model == comparison.models[0])]
      differences = bootstrap.paired_differences(
          {name: [select(frame) for frame in frames]
           for name, frames in comparison.frames.items()}, model, others)
      header, difference_cells = result_tables.difference_rows(model, differences)
      if difference_cells:
        tables.append({"title": f"Gain of {model}{part}, paired by graph",
                       "header": ["over", *header[1:]],
                       "rows": [{"cells": row, "model": row[0] in comparison.models}
                                for row in difference_cells], "note": ""})
  return tables


def _curves(comparison: comparison_lib.Comparison) -> list[dict[str, Any]]:
  """Charts of loss, OPA and tau by epoch, with the best epochs marked."""
  wanted = (("Loss", "loss", "valid_loss"), ("OPA", "train_opa", "valid_opa"),
            ("Kendall's tau", None, "valid_kendall_tau"))
  result = []
  for title, train, valid in wanted:
    series = []
    for colour, model in enumerate(comparison.models):
      for path in comparison.run_dirs[model]:
        if not (path / "history.csv").exists():
          continue
        history = run_files.read_history(path)
        best = _best_epoch(path)
        if train in history:
          series.append(charts.Series(f"{model}, training", history["epoch"].to_list(),
                                      history[train].to_list(), colour, dashed=True))
        if valid in history:
          series.append(charts.Series(f"{model}, validation", history["epoch"].to_list(),
                                      history[valid].to_list(), colour, marked=best))
    if series:
      result.append({"title": title, "svg": _safe(charts.line_chart(
          series, charts.Axis("epoch"), charts.Axis(title)))})
  return result


def _best_epoch(path: pathlib.Path) -> float | None:
  try:
    epoch = run_directory.RunDirectory(path).read_status().get("best_epoch")
  except errors.TpuGraphsRankError:
    return None
  return float(epoch) if isinstance(epoch, (int, float)) and epoch else None


def _sortable(identity: str, header: Sequence[str], rows: Sequence[Sequence[tuple[Any, str]]],
              text_columns: int) -> str:
  """A table that the page can sort. Cells are pairs of a value to sort by and a text."""
  escape = markupsafe.escape
  parts = [f'<table class="sortable" id="{identity}"><thead><tr>']
  parts += [f'<th{_text_class(column < text_columns)}><button type="button">{escape(title)}'
            "</button></th>" for column, title in enumerate(header)]
  parts.append("</tr></thead><tbody>")
  for row in rows:
    cells = [f'<td{_text_class(column < text_columns)} data-value="{escape(value)}">{escape(text)}'
             "</td>" for column, (value, text) in enumerate(row)]
    parts.append(f"<tr>{''.join(cells)}</tr>")
  return "".join([*parts, "</tbody></table>"])


def _text_class(is_text: bool) -> str:
  return ' class="text"' if is_text else ""


def _number(value: float, column: str) -> tuple[Any, str]:
  return ("", "-") if not math.isfinite(value) else (f"{value:.6g}", _shown(value, column))


def _means(comparison: comparison_lib.Comparison) -> pd.DataFrame:
  """One row per graph: names and sizes, and each ranker's tau and top-1 slowdown."""
  first = comparison.frames[comparison.models[0]][0]
  table = first[["graph", "family", "group", "seen", "nodes", "configurations"]].copy()
  for name, frames in comparison.frames.items():
    for column in ("kendall_tau", "top1_slowdown"):
      table[f"{name} {column}"] = bootstrap.seed_mean(frames, column).to_numpy()
  return table


def _rankers(comparison: comparison_lib.Comparison) -> list[tuple[str, str, str]]:
  """(ranker, column, title) of the columns in the tables of families and graphs."""
  shown = [(name, "kendall_tau", f"tau, {name}") for name in comparison.frames]
  return shown + [(name, "top1_slowdown", f"top-1 slowdown, {name}") for name in comparison.models]


def _families(comparison: comparison_lib.Comparison) -> str:
  table = _means(comparison)
  rankers = _rankers(comparison)
  rows = []
  for family, part in table.groupby("family"):
    seen = part["seen"].iloc[0]
    row: list[tuple[Any, str]] = [(str(family), str(family)), (_seen(seen), _seen(seen)),
                                  (len(part), str(len(part)))]
    row += [_number(float(part[f"{name} {column}"].mean()), column) for name, column, _ in rankers]
    rows.append(row)
  return _sortable("families-table", ["family", "group in training", "graphs",
                                      *(title for _, _, title in rankers)], rows, 2)


def _seen(value: Any) -> str:
  return "unknown" if pd.isna(value) else "yes" if value else "no"


def _graphs(comparison: comparison_lib.Comparison) -> str:
  table = _means(comparison)
  rankers = _rankers(comparison)
  rows = []
  for _, entry in table.sort_values(f"{comparison.models[0]} kendall_tau").iterrows():
    row: list[tuple[Any, str]] = [(entry["graph"], entry["graph"]),
                                  (entry["family"], entry["family"])]
    row += [(int(entry[name]), f"{int(entry[name]):,}") for name in ("nodes", "configurations")]
    row += [_number(float(entry[f"{name} {column}"]), column) for name, column, _ in rankers]
    rows.append(row)
  return _sortable("graphs-table", ["graph", "family", "nodes", "configurations",
                                    *(title for _, _, title in rankers)], rows, 2)


def _worst(comparison: comparison_lib.Comparison, model: str) -> list[dict[str, Any]]:
  """The graphs with the lowest tau: predicted rank against runtime, and the program."""
  taus = bootstrap.seed_mean(comparison.frames[model], "kendall_tau").to_numpy()
  order = [int(place) for place in np.argsort(taus, kind="stable") if not math.isnan(taus[place])]
  result = []
  for place in order[:_WORST]:
    program = comparison.task.programs[place]
    graph = program.graph
    scene = scenes.arrange(views.limit(views.from_graph(graph), _DRAWN_NODES), use_dot=False)
    result.append({
        "name": graph.name,
        "about": f"tau {taus[place]:.3f}; {graph.num_nodes} nodes, {len(program.indices)} "
        "configurations", "chart": _safe(_ranks(program, comparison.scores[model][0][place])),
        "drawing": _safe(scenes.svg(scene))})
  return result


def _ranks(program: splits.ProgramView, scores: np.ndarray) -> str:
  runtimes = per_graph.runtimes_of(program)
  ranks = metrics.mean_ranks(scores)
  # Among equal ranks, the points that are kept are drawn at random.
  order = np.lexsort((np.random.default_rng(0).random(len(ranks)), ranks))
  kept = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), _MAX_POINTS)).astype(int))]
  ratio = (runtimes / runtimes.min())[kept]
  wide = float(ratio.max()) > 5
  return charts.line_chart(
      [charts.Series("", ranks[kept], ratio, points=True)],
      charts.Axis("predicted rank (1 = predicted fastest)"),
      charts.Axis("runtime / best runtime", log=wide, floor=1.0), height=230)


def _settings(comparison: comparison_lib.Comparison) -> dict[str, Any]:
  """The settings of the models' first runs: those that are not defaults, and the others."""
  configs = [run_directory.RunDirectory(comparison.run_dirs[model][0]).read_config()
             for model in comparison.models]
  values = [dict((name, value) for name, _, value in config_lib.leaves(config))
            for config in configs]
  defaults = {name: value for name, _, value in config_lib.leaves(run_config.RunConfig)}
  main: list[dict[str, Any]] = []
  rest: list[dict[str, Any]] = []
  for name, default in defaults.items():
    of_runs = [each.get(name) for each in values]
    texts = [_setting(value) for value in of_runs]
    row = {"cells": [name, *texts], "different": len(set(texts)) > 1}
    (rest if all(text == _setting(default) for text in texts) else main).append(row)
  return {"header": ["setting", *comparison.models], "main": main, "rest": rest}


def _setting(value: Any) -> str:
  if isinstance(value, (list, tuple)):
    return ", ".join(map(str, value))
  if isinstance(value, Mapping):
    return ", ".join(f"{key}: {entry}" for key, entry in value.items()) or "none"
  return "none" if value is None else str(value)
