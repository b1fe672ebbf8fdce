"""What tests of plugins and pipelines need. Importable without pytest.

For each of the four contracts there is a class of standard tests. A plugin's author derives from it, names the entry
point and the distribution, gives options, and gets the whole suite:

```python
from tracarbon.testing import SensorContract


class TestFileSensor(SensorContract):
    plugin = "acme_file"
    distribution = "acme-tracarbon"

    def options(self, folder):
        (folder / "watts").write_text("40")
        return {"path": str(folder / "watts")}
```

Each test runs on asyncio and on trio, which has to be installed. pytest finds them; so does whoever calls `test_…`.
"""

from __future__ import annotations

from tracarbon.testing._clock import ManualClock, SleeplessClock
from tracarbon.testing._contract import PluginContract, deviates
from tracarbon.testing._exporter import ExporterContract
from tracarbon.testing._generator import GeneratorContract
from tracarbon.testing._location import LocationContract
from tracarbon.testing._parts import FixedLocation, FixedSensor, RecordingExporter
from tracarbon.testing._sensor import SensorContract

__all__ = [
    "ExporterContract",
    "FixedLocation",
    "FixedSensor",
    "GeneratorContract",
    "LocationContract",
    "ManualClock",
    "PluginContract",
    "RecordingExporter",
    "SensorContract",
    "SleeplessClock",
    "deviates",
]
