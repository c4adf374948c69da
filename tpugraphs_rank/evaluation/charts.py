"""Small charts as inline SVG, for HTML pages.

Text and lines take their colours from the page's CSS variables (`--c0`, `--c1`, ... for series), so
that a chart follows a light or dark theme. Charts scale with the width of the page.
"""

from collections.abc import Sequence
import dataclasses
import html
import math

import numpy as np

_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 12.0, 44.0
_SERIES_COLOURS = 8


@dataclasses.dataclass(frozen=True)
class Series:
  """A line or a set of points.

  Attributes:
    name: its name in the legend; "" for none.
    x, y: (n,) values; pairs with a NaN are left out.
    colour: number of its colour.
    dashed: whether the line is dashed.
    points: draw points instead of a line.
    marked: an x whose point is marked, such as the best epoch.
    low, high: (n,) the ends of a band around the line.
  """

  name: str
  x: Sequence[float] | np.ndarray
  y: Sequence[float] | np.ndarray
  colour: int = 0
  dashed: bool = False
  points: bool = False
  marked: float | None = None
  low: Sequence[float] | np.ndarray | None = None
  high: Sequence[float] | np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Axis:
  """An axis: its title, whether it is logarithmic, its least value, and how ticks are written."""

  title: str
  log: bool = False
  floor: float | None = None
  percent: bool = False
  ticks: Sequence[float] | None = None


class _Scale:
  """Maps values to positions."""

  def __init__(self, axis: Axis, low: float, high: float, start: float, end: float):
    self.axis = axis
    if axis.log:
      low = max(low, axis.floor or 1e-12)
      high = max(high, low * 1.01)
    elif high <= low:
      low, high = low - 0.5, high + 0.5
    self.low, self.high = low, high
    self._start, self._end = start, end

  def __call__(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if self.axis.log:
      logs = np.log(np.maximum(array, self.low))
      share = (logs - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
    else:
      share = (array - self.low) / (self.high - self.low)
    return np.asarray(self._start + share * (self._end - self._start))

  def ticks(self) -> list[float]:
    """Round values inside the scale."""
    if self.axis.ticks is not None:
      chosen = list(self.axis.ticks)
    elif self.axis.log:
      decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
      steps = (1.0,) if self.high / self.low > 50 else (1.0, 2.0, 5.0)
      chosen = [step * 10.0 ** decade for decade in decades for step in steps]
    else:
      rough = (self.high - self.low) / 5
      size = 10.0 ** math.floor(math.log10(rough))
      step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
      chosen = [step * number for number in range(
          math.ceil(self.low / step), math.floor(self.high / step) + 1)]
    margin = 1e-9 * abs(self.high)
    return [tick for tick in chosen if self.low - margin <= tick <= self.high + margin]

  def text(self, tick: float) -> str:
    """A tick's label."""
    return f"{100 * tick:.4g} %" if self.axis.percent else f"{tick:.4g}"


def line_chart(series: Sequence[Series], x: Axis, y: Axis, width: float = 460.0,
               height: float = 280.0) -> str:
  """A chart of lines and points with a legend, as an HTML fragment."""
  shown = [each for each in series if _defined(each).any()]
  if not shown:
    return '<p class="empty">Nothing to draw.</p>'
  every_x = np.concatenate([np.asarray(each.x, float)[_defined(each)] for each in shown])
  every_y = np.concatenate([np.concatenate([
      np.asarray(values, float)[_defined(each)] for values in (each.y, each.low, each.high)
      if values is not None]) for each in shown])
  x_scale = _Scale(x, *_extent(every_x, x, 0.0), _LEFT, width - _RIGHT)
  y_scale = _Scale(y, *_extent(every_y, y, 0.06), height - _BOTTOM, _TOP)
  parts = [_frame(x_scale, y_scale, width, height)]
  for each in shown:
    parts.append(_drawn(each, x_scale, y_scale))
  return _figure("".join(parts), width, height, f"{y.title} by {x.title}") + _legend(shown)


def interval_chart(names: Sequence[str], means: Sequence[float], lows: Sequence[float],
                   highs: Sequence[float], axis: Axis, width: float = 460.0) -> str:
  """One row per name: its mean as a point, and its interval as a line."""
  left, row, top = 150.0, 24.0, 8.0
  height = top + row * len(names) + _BOTTOM
  values = np.array([*means, *lows, *highs], float)
  values = values[np.isfinite(values)]
  if not values.size:
    return '<p class="empty">Nothing to draw.</p>'
  scale = _Scale(axis, *_extent(np.append(values, 0.0 if not axis.log else values[0]), axis, 0.04),
                 left, width - _RIGHT)
  parts = [_vertical_grid(scale, top, height - _BOTTOM, height)]
  parts.append(f'<text class="title" x="{(left + width) / 2:.1f}" y="{height - 8:.1f}" '
               f'text-anchor="middle">{html.escape(axis.title)}</text>')
  for place, (name, mean, low, high) in enumerate(zip(names, means, lows, highs)):
    y = top + row * (place + 0.5)
    parts.append(f'<text class="tick" x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end">'
                 f'{html.escape(_shortened(name, 22))}</text>')
    if math.isfinite(mean):
      a, b, c = scale([low, mean, high])
      style = f'style="--series:var(--c{place % _SERIES_COLOURS})"'
      parts.append(f'<g {style}><line class="line" x1="{a:.1f}" x2="{c:.1f}" y1="{y:.1f}" '
                   f'y2="{y:.1f}"/><circle class="point" cx="{b:.1f}" cy="{y:.1f}" r="4.5"/></g>')
  return _figure("".join(parts), width, height, axis.title)


def _defined(series: Series) -> np.ndarray:
  return np.isfinite(np.asarray(series.x, float)) & np.isfinite(np.asarray(series.y, float))


def _extent(values: np.ndarray, axis: Axis, margin: float) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  if axis.floor is not None:
    low = axis.floor
  if axis.log:
    return low, high
  space = margin * (high - low)
  return (low if axis.floor is not None else low - space), high + space


def _drawn(series: Series, x: _Scale, y: _Scale) -> str:
  keep = _defined(series)
  places = np.stack([x(np.asarray(series.x, float)[keep]), y(np.asarray(series.y, float)[keep])], 1)
  parts = [f'<g style="--series:var(--c{series.colour % _SERIES_COLOURS})">']
  if series.low is not None and series.high is not None:
    upper, lower = y(np.asarray(series.high, float)[keep]), y(np.asarray(series.low, float)[keep])
    outline = [*zip(places[:, 0], upper), *zip(places[::-1, 0], lower[::-1])]
    parts.append(f'<polygon class="band" points="{_points(outline)}"/>')
  if series.points:
    radius = float(np.clip(20 / math.sqrt(max(len(places), 1)), 1.6, 3.5))
    parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="{radius:.1f}"/>'
              for a, b in places]
  else:
    dash = ' stroke-dasharray="5 4"' if series.dashed else ""
    parts.append(f'<polyline class="line"{dash} points="{_points(places)}"/>')
  if series.marked is not None:
    for a, b in places[np.asarray(series.x, float)[keep] == series.marked]:
      parts.append(f'<circle class="point" cx="{a:.1f}" cy="{b:.1f}" r="5"><title>'
                   f'{html.escape(series.name)}: {series.marked:g}</title></circle>')
  return "".join([*parts, "</g>"])


def _points(places: Sequence) -> str:
  return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def _frame(x: _Scale, y: _Scale, width: float, height: float) -> str:
  bottom = height - _BOTTOM
  parts = [_vertical_grid(x, _TOP, bottom, height)]
  for tick in y.ticks():
    place = y([tick])[0]
    parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{place:.1f}" '
                 f'y2="{place:.1f}"/><text class="tick" x="{_LEFT - 6}" y="{place + 4:.1f}" '
                 f'text-anchor="end">{y.text(tick)}</text>')
  middle = (_TOP + bottom) / 2
  parts.append(f'<text class="title" x="{(_LEFT + width - _RIGHT) / 2:.1f}" y="{height - 8:.1f}" '
               f'text-anchor="middle">{html.escape(x.axis.title)}</text>'
               f'<text class="title" x="12" y="{middle:.1f}" text-anchor="middle" '
               f'transform="rotate(-90 12 {middle:.1f})">{html.escape(y.axis.title)}</text>')
  return "".join(parts)


def _vertical_grid(x: _Scale, top: float, bottom: float, height: float) -> str:
  parts = []
  for tick in x.ticks():
    place = x([tick])[0]
    parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" '
                 f'y2="{bottom:.1f}"/><text class="tick" x="{place:.1f}" y="{bottom + 16:.1f}" '
                 f'text-anchor="middle">{x.text(tick)}</text>')
  return "".join(parts)


def _figure(content: str, width: float, height: float, label: str) -> str:
  return (f'<svg class="chart" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
          f'aria-label="{html.escape(label, quote=True)}">{content}</svg>')


def _legend(series: Sequence[Series]) -> str:
  entries = {}
  for each in series:
    if each.name and each.name not in entries:
      kind = "dashed" if each.dashed else "solid"
      colour = f"--series:var(--c{each.colour % _SERIES_COLOURS})"
      entries[each.name] = (f'<span class="key"><i class="{kind}" style="{colour}"></i>'
                            f"{html.escape(each.name)}</span>")
  return f'<div class="legend">{"".join(entries.values())}</div>' if entries else ""


def _shortened(name: str, most: int) -> str:
  return name if len(name) <= most else name[:most - 1] + "…"
