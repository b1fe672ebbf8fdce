"""What the daemon costs: CPU, memory, regularity, time to the first figure, `--help`; each as a ratio in this one run.

The daemon reads 8 RAPL zones once a second and writes to standard output. Beside it runs a bare anyio loop that preads
the same files and writes one line. Start-up is left out of the CPU figures.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.powercap_tree import PowercapTree, two_sockets_eight_zones

SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
SETTLE_SECONDS = 3.0
TRACARBON = str(Path(sys.executable).parent / "tracarbon")

BARE_LOOP = """
import os, sys, time, anyio
files = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
async def main():
    start, tick = time.monotonic(), 0
    while True:
        values = [int(os.pread(file, 32, 0)) for file in files]
        os.write(1, f"{time.time()} {sum(values)}\\n".encode())
        tick += 1
        await anyio.sleep(start + tick - time.monotonic())
anyio.run(main)
"""


@dataclass
class Daemon:
    """A running process and when each of its bursts of lines came."""

    command: list[str]
    arrivals: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while self.process.stdout.read(65536):
            now = time.monotonic()
            if not self.arrivals or now - self.arrivals[-1] > 0.05:
                self.arrivals.append(now)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        schedstat = Path(f"/proc/{self.process.pid}/schedstat")
        if schedstat.exists():
            return int(schedstat.read_text().split()[0]) / 1e9
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def first_figure_seconds(self) -> float:
        return self.arrivals[0] - self.started_at

    def period(self) -> tuple[float, float]:
        """Drift per tick and standard deviation of the period, in seconds."""
        ticks = self.arrivals[3:]
        periods = [later - earlier for earlier, later in pairwise(ticks)]
        return statistics.mean(periods) - 1.0, statistics.stdev(periods)


def run_beside(daemons: list[Daemon]) -> list[float]:
    for daemon in daemons:
        daemon.start()
    time.sleep(SETTLE_SECONDS)
    before = [daemon.cpu_seconds() for daemon in daemons]
    time.sleep(SECONDS)
    return [daemon.cpu_seconds() - cpu for daemon, cpu in zip(daemons, before, strict=True)]


def median_seconds(command: list[str], rounds: int = 15) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def median_first_figure(command: list[str], rounds: int = 7) -> float:
    times = []
    for _ in range(rounds):
        daemon = Daemon(command)
        daemon.start()
        while not daemon.arrivals:
            time.sleep(0.002)
        times.append(daemon.first_figure_seconds())
        daemon.process.terminate()
        daemon.process.wait()
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PowercapTree(Path(folder) / "tree", two_sockets_eight_zones())
        files = sorted(map(str, (Path(folder) / "tree").glob("devices/**/energy_uj")))[:8]
        config = Path(folder) / "pipeline.toml"
        config.write_text(
            f'interval = "1s"\n[location]\ncountry = "FR"\n[sensors.rapl]\npath = "{folder}/tree/class/powercap"\n'
            "[generators.energy]\n[generators.carbon]\n[exporters.stdout]\n"
        )
        run, bare_loop = [TRACARBON, "run", "-c", str(config)], [sys.executable, "-c", BARE_LOOP, *files]
        help_ratio = median_seconds([TRACARBON, "--help"]) / median_seconds([sys.executable, "-c", "pass"])
        print(f"--help: {help_ratio:.1f} x python -c pass (asked <= 6)")
        first, bare_first = median_first_figure(run), median_first_figure(bare_loop)
        print(
            f"first figure: {first:.2f} s, {first / bare_first:.1f} x the bare loop's {bare_first:.2f} s "
            "(asked <= 4 x, <= 0.6 s)"
        )
        ours, bare = Daemon(run), Daemon(bare_loop)
        cpu = run_beside([ours, bare])
        hourly = [seconds * 3600 / SECONDS for seconds in cpu]
        print(
            f"CPU at 1 Hz: {hourly[0]:.1f} s/h, {cpu[0] / cpu[1]:.2f} x the bare loop's {hourly[1]:.1f} s/h "
            "(asked <= 1.3)"
        )
        print(f"RSS: {ours.rss_megabytes():.1f} MB (asked <= 45); bare loop {bare.rss_megabytes():.1f} MB")
        (drift, deviation), (_, bare_deviation) = ours.period(), bare.period()
        print(
            f"period: drift {drift * 1e3:.3f} ms a tick, s.d. {deviation * 1e3:.2f} ms, "
            f"{deviation / bare_deviation:.1f} x the bare loop's {bare_deviation * 1e3:.2f} ms (asked 0 and <= 2 x)"
        )
        for daemon in (ours, bare):
            daemon.process.terminate()
            daemon.process.wait()


if __name__ == "__main__":
    main()
