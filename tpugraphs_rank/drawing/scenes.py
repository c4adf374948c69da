"""Arranged views, and their output as SVG and PNG. Both have the same geometry."""

import dataclasses
import html
import pathlib

from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
from matplotlib import patches
from matplotlib import path as path_lib
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.drawing import graphviz
from tpugraphs_rank.drawing import layered
from tpugraphs_rank.drawing import views

_FONT = 12.0
_LINE = 15.0
_CHARACTER = 7.0  # Width of a character, on average.
_PADDING = 8.0
_MARGIN = 16.0
_CAPTION = 40.0
_DPI = 144

# Fill colours by kind of operation, light enough for black text. Okabe and Ito's hues, which
# readers with colour blindness can distinguish.
_GROUPS = {
    "#cfe5f3": ("parameter", "constant", "iota", "infeed"),
    "#fbdfcb": ("dot", "convolution", "fusion", "custom-call", "cholesky", "triangular-solve",
                "fft"),
    "#cdebe0": ("reduce", "reduce-window", "select-and-scatter", "sort", "all-reduce", "scatter"),
    "#f4e0ec": ("reshape", "transpose", "broadcast", "copy", "bitcast", "slice", "concatenate",
                "pad", "reverse", "gather", "dynamic-slice", "dynamic-update-slice", "convert"),
    "#e6e6e6": ("tuple", "get-tuple-element", "call", "while", "conditional")}
_FILL = {opcode: colour for colour, names in _GROUPS.items() for opcode in names}
_OTHER = "#fdf3d1"  # Elementwise operations.
_EDGE = "#8a8f98"
_BORDER = "#6b7280"
_MARK = "#d55e00"  # Configurable nodes.


@dataclasses.dataclass(frozen=True)
class Box:
  """A node with its place: centre, size, and lines of text."""

  node: views.Node
  x: float
  y: float
  width: float
  height: float
  lines: tuple[str, ...]

  @property
  def fill(self) -> str:
    """The colour of the box."""
    return _FILL.get(self.node.opcode, _OTHER)


@dataclasses.dataclass(frozen=True)
class Scene:
  """An arranged view.

  Attributes:
    view: what it shows.
    boxes: the nodes.
    routes: for each edge (p, 2) the points of its line.
    splines: whether the points are those of cubic Bézier curves.
    width, height: size of the drawing.
  """

  view: views.View
  boxes: tuple[Box, ...]
  routes: tuple[np.ndarray, ...]
  splines: bool
  width: float
  height: float


def arrange(view: views.View, use_dot: bool | None = None) -> Scene:
  """Arranges a view from top to bottom.

  Args:
    view: what to draw.
    use_dot: whether Graphviz's `dot` computes the layout; None: if it is installed. Otherwise, and
      if `dot` fails, `layered` does.
  """
  lines = [_lines(node) for node in view.nodes]
  widths = [max(map(len, each)) * _CHARACTER + 2 * _PADDING for each in lines]
  heights = [len(each) * _LINE + _PADDING for each in lines]
  splines, placed = False, None
  if graphviz.available() if use_dot is None else use_dot:
    placed = graphviz.arrange(view.edges, widths, heights)
    splines = placed is not None
  centres, routes = placed or layered.arrange(view.edges, widths, heights)
  extent = np.array([widths, heights]).T / 2
  everything = np.concatenate([centres - extent, centres + extent, *routes])
  shift = np.array([_MARGIN, _MARGIN + _CAPTION]) - everything.min(axis=0)
  size = everything.max(axis=0) + shift + _MARGIN
  title = max(len(view.title) * 1.15, len(view.note)) * _CHARACTER + 2 * _MARGIN
  shift[0] += max(title - size[0], 0.0) / 2
  boxes = tuple(Box(node, x, y, width, height, text) for node, (x, y), width, height, text in zip(
      view.nodes, centres + shift, widths, heights, lines))
  return Scene(view, boxes, tuple(route + shift for route in routes), splines,
               max(float(size[0]), title), float(size[1]))


def _lines(node: views.Node) -> tuple[str, ...]:
  head = f"{node.opcode} · {node.number}" if not node.name else node.name
  lines = [head, *([node.opcode] if node.name and not _names_opcode(node) else []),
           *([node.detail] if node.detail else []), *node.requests]
  if node.hidden:
    lines.append(f"+ {node.hidden} not shown")
  return tuple(lines)


def _names_opcode(node: views.Node) -> bool:
  """Whether the instruction's name begins with its opcode, such as `dot.7`."""
  return node.name.partition(".")[0].replace("_", "-") == node.opcode


def write(path: files.PathLike, scene: Scene) -> None:
  """Writes a scene as .svg or .png, depending on the name of the file.

  Raises:
    ConfigError: the name has another ending.
    OutputError: the file cannot be written.
  """
  suffix = pathlib.Path(path).suffix.lower()
  if suffix == ".svg":
    files.write_text(path, svg(scene))
  elif suffix == ".png":
    _write_png(path, scene)
  else:
    raise errors.ConfigError(f"{path} is neither an .svg nor a .png file")


def svg(scene: Scene) -> str:
  """The scene as an SVG document. It needs no external file and has a white background."""
  parts = [
      f'<svg xmlns="http://www.w3.org/2000/svg" width="{scene.width:.0f}" '
      f'height="{scene.height:.0f}" viewBox="0 0 {scene.width:.1f} {scene.height:.1f}" '
      f'role="img" aria-label="{html.escape(scene.view.title, quote=True)}" '
      f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{_FONT - 1:g}">',
      '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>',
      f'<text x="{_MARGIN}" y="{_MARGIN + 8}" font-size="14" font-weight="bold" fill="#111827">'
      f'{html.escape(scene.view.title)}</text>',
      f'<text x="{_MARGIN}" y="{_MARGIN + 26}" fill="#4b5563">'
      f'{html.escape(scene.view.note)}</text>',
      f'<g fill="none" stroke="{_EDGE}" stroke-width="1.2">']
  parts += [f'<path d="{_path_text(route, scene.splines)}"/>' for route in scene.routes]
  parts.append(f'</g><g fill="{_EDGE}">')
  for route in scene.routes:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _arrow(route, scene.splines))
    parts.append(f'<polygon points="{points}"/>')
  parts.append("</g>")
  for box in scene.boxes:
    border, thickness = (_MARK, 2.4) if box.node.configurable else (_BORDER, 0.8)
    left, top = box.x - box.width / 2, box.y - box.height / 2
    parts.append(
        f'<g><title>node {box.node.number}: {html.escape(" / ".join(box.lines))}</title>'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="5" fill="{box.fill}" stroke="{border}" stroke-width="{thickness}"/>')
    for place, (y, line) in enumerate(_text_places(box)):
      colour = _MARK if line in box.node.requests else "#111827" if place == 0 else "#4b5563"
      parts.append(f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{colour}"'
                   f'{_bold(place)}>{html.escape(line)}</text>')
    parts.append("</g>")
  return "\n".join([*parts, "</svg>\n"])


def _bold(place: int) -> str:
  return ' font-weight="bold"' if place == 0 else ""


def _text_places(box: Box) -> list[tuple[float, str]]:
  """The baseline of each line of text."""
  top = box.y - box.height / 2 + _PADDING / 2
  return [(top + _LINE * place + 11.5, line) for place, line in enumerate(box.lines)]


def _curve(route: np.ndarray, splines: bool) -> tuple[list[tuple[float, float]], list[int]]:
  """Points and codes of a path: the route itself if it is a spline, otherwise a smooth line."""
  if splines:
    points = route
  else:
    # Each section leaves and enters vertically.
    sections = [[(a[0], (a[1] + b[1]) / 2), (b[0], (a[1] + b[1]) / 2), tuple(b)]
                for a, b in zip(route, route[1:])]
    points = np.array([tuple(route[0]), *(point for section in sections for point in section)])
  codes = [int(path_lib.Path.MOVETO)] + [int(path_lib.Path.CURVE4)] * (len(points) - 1)
  return [(float(x), float(y)) for x, y in points], codes


def _path_text(route: np.ndarray, splines: bool) -> str:
  points, _ = _curve(route, splines)
  texts = [f"{x:.1f},{y:.1f}" for x, y in points]
  return f"M{texts[0]} C{' '.join(texts[1:])}"


def _arrow(route: np.ndarray, splines: bool) -> np.ndarray:
  """(3, 2) the head of an arrow at the end of a route."""
  tip = route[-1]
  direction = tip - route[-2]
  if not splines and direction[1]:  # Such lines enter boxes vertically, see `_curve`.
    direction = np.array([0.0, np.sign(direction[1])])
  direction = direction / max(float(np.hypot(*direction)), 1e-9)
  side = np.array([-direction[1], direction[0]])
  return np.array([tip, tip - 7 * direction + 3.5 * side, tip - 7 * direction - 3.5 * side])


def draw(axis: axes_lib.Axes, scene: Scene, scale: float = 1.0) -> None:
  """Draws a scene with matplotlib.

  Args:
    axis: where to draw; its limits become those of the scene.
    scene: what to draw.
    scale: size of fonts and lines, in points per unit of the scene.
  """
  axis.set(xlim=(0, scene.width), ylim=(scene.height, 0))
  axis.axis("off")
  axis.text(_MARGIN, _MARGIN + 8, scene.view.title, fontsize=14 * scale, weight="bold",
            color="#111827")
  axis.text(_MARGIN, _MARGIN + 26, scene.view.note, fontsize=(_FONT - 2) * scale, color="#4b5563",
            family="monospace")
  for route in scene.routes:
    points, codes = _curve(route, scene.splines)
    axis.add_patch(patches.PathPatch(path_lib.Path(points, codes), fill=False, edgecolor=_EDGE,
                                     linewidth=1.2 * scale))
    axis.add_patch(patches.Polygon(_arrow(route, scene.splines), color=_EDGE, linewidth=0))
  for box in scene.boxes:
    border, thickness = (_MARK, 2.4) if box.node.configurable else (_BORDER, 0.8)
    axis.add_patch(patches.FancyBboxPatch(
        (box.x - box.width / 2 + 5, box.y - box.height / 2 + 5), box.width - 10, box.height - 10,
        boxstyle="round,pad=5", facecolor=box.fill, edgecolor=border,
        linewidth=thickness * scale))
    for place, (y, line) in enumerate(_text_places(box)):
      colour = _MARK if line in box.node.requests else "#111827" if place == 0 else "#4b5563"
      axis.text(box.x, y, line, ha="center", fontsize=(_FONT - 2) * scale, color=colour,
                family="monospace", weight="bold" if place == 0 else "normal", parse_math=False)


def _write_png(path: files.PathLike, scene: Scene) -> None:
  inches = scene.width / 72, scene.height / 72
  # Limited, since a picture of several 100 megapixels helps nobody.
  dpi = min(_DPI, 20_000 / max(inches))
  figure = figure_lib.Figure(figsize=inches, facecolor="white")
  draw(figure.add_axes((0, 0, 1, 1)), scene)
  with files.atomic_write(path) as file:
    figure.savefig(file, format="png", dpi=dpi)
