"""The pictures of the page in docs/, taken of a real service in a real Chromium.

python -m tests.pictures
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from tests.chromium import chromium, look
from tests.serving import Service

_DOCS = Path(__file__).parent.parent / "docs"
_NAME = "hot-items"
_PIPELINE = """\
version: 1
pipeline: {name}
job: {{checkpoint: {{every: 3s}}}}
sources:
  bids:
    type: datagen
    rate: 1000
    columns:
      auction: {{zipf: {{n: 500, s: 1.1}}}}
      price: {{normal: [200.0, 60.0]}}
      at: {{time: {{start: "{now}", step: 1ms}}}}
    event_time: {{column: at, out_of_order: 2s}}
  auctions:
    type: datagen
    rate: 100
    columns:
      category: {{choice: [art, books, coins]}}
      at: {{time: {{start: "{now}", step: 10ms}}}}
    event_time: {{column: at, out_of_order: 5s}}
steps:
  large: {{input: bids, where: price > 100}}
  counts:
    input: large
    key: [auction]
    window: {{hop: {{size: 10s, every: 2s}}}}
    aggregate: {{bids: count(*)}}
    late: {{accept_for: 0s, then: side_output}}
    parallelism: 2
  hottest: {{input: counts, top: {{n: 5, by: [bids desc], window: input}}}}
  opened: {{input: auctions, key: [category], window: {{tumble: 2s}}, aggregate: {{auctions: count(*)}}}}
sinks:
  hot: {{type: file, path: hot, input: hottest}}
  late-bids: {{type: file, path: late, input: counts.late}}
  categories: {{type: file, path: categories, input: opened}}
"""
_UNDER_WAY_S = 45.0  # rates are of the last ten seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        service = Service(Path(folder))
        service.start()
        try:
            request = urllib.request.Request(
                f"{service.url}/v1/pipelines/{_NAME}",
                _PIPELINE.format(name=_NAME, now=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}").encode(),
                {"Content-Type": "application/yaml"},
                method="PUT",
            )
            urllib.request.urlopen(request, timeout=60).close()
            time.sleep(_UNDER_WAY_S)
            for scheme in ("light", "dark"):
                look(browser, dark=scheme == "dark", height=1010)
                browser.get(f"{service.url}/pipelines/{_NAME}")
                browser.save_screenshot(str(_DOCS / f"page-{scheme}.png"))
        finally:
            service.kill()


if __name__ == "__main__":
    main()
