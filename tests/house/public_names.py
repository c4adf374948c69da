"""The public names, as the golden file lists them.

    python -m tests.house.public_names   # writes tests/golden/public_names.txt again
"""

import importlib
import pathlib

import tpugraphs_rank

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "public_names.txt"


def public_names() -> list[str]:
  """Dotted names: the package's `__all__`, and that of each of its packages which has one."""
  folder = pathlib.Path(tpugraphs_rank.__file__).parent
  packages = ["tpugraphs_rank"] + [
      f"tpugraphs_rank.{path.parent.name}" for path in folder.glob("*/__init__.py")]
  return sorted(
      f"{package}.{name}"
      for package in packages
      for name in getattr(importlib.import_module(package), "__all__", ()))


if __name__ == "__main__":
  GOLDEN.parent.mkdir(exist_ok=True)
  GOLDEN.write_text("".join(f"{name}\n" for name in public_names()), encoding="utf-8")
