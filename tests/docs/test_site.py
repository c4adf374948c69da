"""The documentation site builds strictly, and its pages load nothing from the network."""

import html.parser
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter")


class _Resources(html.parser.HTMLParser):
  """Collects the addresses of everything that a page loads."""

  def __init__(self):
    super().__init__()
    self.addresses: list[str] = []

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    if tag in ("script", "img", "iframe", "source"):
      self.addresses.append(attributes.get("src") or "")
    elif tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev"):
      self.addresses.append(attributes.get("href") or "")


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in PACKAGES),
                    reason="the packages of the extra `docs` are not installed")
def test_the_site_builds_strictly_and_needs_no_network(tmp_path):
  # A proxy that does not exist: any request to the network fails.
  nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
  result = subprocess.run(
      [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
      cwd=ROOT, env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True,
      text=True, check=False)
  assert result.returncode == 0, result.stderr[-3000:]
  pages = list((tmp_path / "site").rglob("*.html"))
  assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
  for page in pages:
    resources = _Resources()
    resources.feed(page.read_text(encoding="utf-8"))
    remote = [address for address in resources.addresses if address.startswith(("http", "//"))]
    assert not remote, f"{page.relative_to(tmp_path)} loads {remote}"
