"""The JSON exporter, 8 records a tick, against one orjson append of them; the file at 0 and at 10^6 records.

By process CPU time, the exporter's thread included, in one run, median of many rounds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import anyio
import orjson
from tracarbon.exporters.json_exporter import JSONExporter
from tracarbon.metrics import Batch, MetricKind, Record, Tag, Window

ROUNDS, TICKS = 15, 300
NAMES = [
    f"{kind}_{part}" for kind in ("energy_consumption", "carbon_emission") for part in ("host", "cpu", "mem", "gpu")
]
TAGS = tuple(Tag(f"key{number}", f"value{number}") for number in range(6))


def batch(number: int) -> Batch:
    window = Window(number, number + 1.0, 1.7e9 + number, 1.7e9 + number + 1.0)
    records = [
        Record(name, 17.123456 + number, TAGS, "watts", MetricKind.RATE, 1.0, "energy", window.end) for name in NAMES
    ]
    return Batch.of_window("energy", window, records)


def orjson_seconds(folder: Path) -> float:
    records = [
        {"timestamp": "2026-01-01T00:00:00.000Z", "name": name, "unit": "watts", "kind": "rate", "tags": dict(TAGS),
         "value": 17.123456, "covered_seconds": 1.0, "window_seconds": 1.0}
        for name in NAMES
    ]  # fmt: skip
    descriptor = os.open(folder / "orjson", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    started = time.process_time()
    for _ in range(TICKS):
        os.write(descriptor, b"\n".join([orjson.dumps(record) for record in records]))
    elapsed = time.process_time() - started
    os.close(descriptor)
    return elapsed / TICKS


async def exporter_seconds(path: Path) -> float:
    batches = [batch(number) for number in range(TICKS)]
    async with JSONExporter(path=str(path), indent=None) as exporter:
        await exporter.export(batch(-1))
        started = time.process_time()
        for one in batches:
            await exporter.export(one)
        return (time.process_time() - started) / TICKS


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = folder / "large.json"
        record = b',\n{"timestamp":"2026-01-01T00:00:00.000Z","name":"x","value":1.0,"tags":{"a":"b"}}'
        large.write_bytes(b"[\n" + record[2:] + record * (10**6 - 1) + b"\n]\n")
        bare, empty, full = [], [], []
        for number in range(ROUNDS):
            bare.append(orjson_seconds(folder))
            empty.append(anyio.run(exporter_seconds, folder / f"{number}.json"))
            full.append(anyio.run(exporter_seconds, large))
    base = statistics.median(bare)
    print(f"one orjson append of 8 records: {base * 1e6:.1f} us")
    for label, seconds in (("empty file", empty), ("file of 10^6 records", full)):
        print(f"json exporter, {label}: {statistics.median(seconds) / base:.1f} x (asked <= 5)")


if __name__ == "__main__":
    main()
