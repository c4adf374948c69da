"""The BUILD files: one target a module, its dependencies as the module's imports have them.

    python -m tools.build_files           # prints what differs, and fails if something does
    python -m tools.build_files --write   # writes them anew

Standard library only. `tests/house/test_build_files.py` holds the files to the imports.
"""

import argparse
import ast
import pathlib
import sys
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREES = ("tpugraphs_rank", "experiments", "tools")

# Names of distributions that are not the name of the module with hyphens for underscores.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "google": "protobuf",
    "grpc_tools": "grpcio-tools",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

_HEADER = '''\
# Written by ./run build-files from the imports; a test holds it to them.
load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "{rules}")

package(default_visibility = ["//visibility:public"])
'''


class Target(NamedTuple):
  """A py_library or py_binary of one module.

  Attributes:
    source: the module's file, relative to its folder.
    deps: labels and `requirement("...")` expressions as they stand in the file, sorted.
    binary: whether the module can be run.
  """
  source: str
  deps: Tuple[str, ...]
  binary: bool = False


def folders(root: pathlib.Path = ROOT) -> List[pathlib.Path]:
  """Folders of `TREES` that hold Python modules, relative to `root`, sorted."""
  found = {
      path.parent.relative_to(root)
      for tree in TREES for path in (root / tree).rglob("*.py")}
  return sorted(found)


def expected_targets(folder: pathlib.Path, root: pathlib.Path = ROOT) -> Dict[str, Target]:
  """The targets that the imports of a folder's modules ask for, by name, sorted."""
  targets = {}
  for path in sorted((root / folder).glob("*.py")):
    label = _label(path.relative_to(root))
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    deps = {_dependency(name, root) for name in _imported(tree, root)} - {None, f'"{label}"'}
    local = {dep: dep.replace(f'"//{folder.as_posix()}:', '":') for dep in deps}
    name = label.rpartition(":")[2] if ":" in label else folder.name
    if name in targets:
      raise SystemExit(f"{path.relative_to(root)}: a module must not bear its folder's name")
    targets[name] = Target(path.name, tuple(sorted(local.values(), key=_order)), _is_script(tree))
  return dict(sorted(targets.items()))


def read_targets(path: pathlib.Path) -> Dict[str, Target]:
  """The targets of a BUILD file; none where there is no file.

  BUILD files are written in Starlark, of which the part that is used here is Python's syntax.
  """
  if not path.exists():
    return {}
  targets = {}
  for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ("py_library", "py_binary"):
      continue
    values = {keyword.arg: keyword.value for keyword in call.keywords}
    deps = values.get("deps", ast.List([]))
    targets[ast.literal_eval(values["name"])] = Target(
        ast.literal_eval(values["srcs"])[0],
        tuple(_dump(item) for item in deps.elts),
        ast.unparse(call.func) == "py_binary")
  return targets


def differences(folder: pathlib.Path, root: pathlib.Path = ROOT) -> List[str]:
  """What a folder's BUILD file would have to change, a line each."""
  file = (folder / "BUILD").as_posix()
  expected, actual = expected_targets(folder, root), read_targets(root / folder / "BUILD")
  lines = []
  for name in sorted(set(expected) | set(actual)):
    if name not in actual:
      lines.append(f"{file}: add a target {name} for {expected[name].source}")
    elif name not in expected:
      lines.append(f"{file}: remove the target {name}; there is no {actual[name].source}")
    else:
      old, new = actual[name], expected[name]
      lines.extend(f"{file}: {name}: add {dep}" for dep in new.deps if dep not in old.deps)
      lines.extend(f"{file}: {name}: remove {dep}" for dep in old.deps if dep not in new.deps)
      if old._replace(deps=()) != new._replace(deps=()):
        lines.append(f"{file}: {name}: expected {_rule(new)} of {new.source}")
  return lines


def render(targets: Dict[str, Target]) -> str:
  """The text of a BUILD file, in the form that `buildifier` would give it."""
  rules = sorted({_rule(target) for target in targets.values()})
  text = _HEADER.replace('"{rules}"', ", ".join(f'"{rule}"' for rule in rules))
  if not any("requirement" in dep for target in targets.values() for dep in target.deps):
    text = text.replace('load("@pip//:requirements.bzl", "requirement")\n', "")
  for name, target in targets.items():
    text += f'\n{_rule(target)}(\n    name = "{name}",\n    srcs = ["{target.source}"],\n'
    if len(target.deps) == 1:
      text += f"    deps = [{target.deps[0]}],\n"
    elif target.deps:
      text += "    deps = [\n" + "".join(f"        {dep},\n" for dep in target.deps) + "    ],\n"
    text += ")\n"
  return text


def third_party(tree: str, root: pathlib.Path = ROOT) -> Dict[str, List[str]]:
  """Distributions that the modules below `tree` import, each with the files that do."""
  found: Dict[str, List[str]] = {}
  for folder in folders(root):
    if folder.parts[0] != tree:
      continue
    for target in expected_targets(folder, root).values():
      for dep in target.deps:
        if dep.startswith("requirement("):
          found.setdefault(ast.literal_eval(dep[len("requirement("):-1]), []).append(
              (folder / target.source).as_posix())
  return found


def _rule(target: Target) -> str:
  return "py_binary" if target.binary else "py_library"


def _order(dep: str) -> Tuple[int, str]:
  """Local targets, then others of this repository, then third parties: what buildifier does."""
  kind = 2 if dep.startswith("requirement") else 1 if dep.startswith('"//') else 0
  return kind, dep.replace(":", "!")  # Its order puts a folder's own targets before its subfolders.


def _dump(node: ast.expr) -> str:
  return ast.unparse(node).replace("'", '"')


def _label(path: pathlib.Path) -> str:
  """Target of a module's file: //folder:module, or //folder for its __init__.py."""
  folder = path.parent.as_posix()
  return f"//{folder}" if path.name == "__init__.py" else f"//{folder}:{path.stem}"


def _dependency(module: str, root: pathlib.Path) -> Optional[str]:
  """Label or requirement of a dotted name; None for the standard library."""
  top = module.partition(".")[0]
  if top in TREES:
    path = _file(module, root)
    return f'"{_label(path)}"' if path else None
  if top in sys.stdlib_module_names:
    return None
  return f'requirement("{DISTRIBUTIONS.get(top, top.replace("_", "-"))}")'


def _file(module: str, root: pathlib.Path) -> Optional[pathlib.Path]:
  path = pathlib.Path(*module.split("."))
  for candidate in (path.with_suffix(".py"), path / "__init__.py"):
    if (root / candidate).exists():
      return candidate
  return None


def _imported(tree: ast.Module, root: pathlib.Path) -> Iterator[str]:
  """Dotted names of the modules that a module imports, wherever in it."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      for alias in node.names:
        inner = f"{node.module}.{alias.name}"  # `from package import module`, or a name in it.
        yield inner if _file(inner, root) else node.module


def _is_script(tree: ast.Module) -> bool:
  return any(
      isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--write", action="store_true", help="write the files anew")
  write = parser.parse_args().write
  lines = [line for folder in folders() for line in differences(folder)]
  print("\n".join(lines) if lines else "BUILD files agree with the imports")
  if write:
    for folder in folders():
      (ROOT / folder / "BUILD").write_text(
          render(expected_targets(folder)), encoding="utf-8")
  return 1 if lines and not write else 0


if __name__ == "__main__":
  sys.exit(main())
