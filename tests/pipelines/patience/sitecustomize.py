"""Makes a Python patient: on a slow machine nothing is late that is late nowhere else.

Python imports this at its start where its folder is in PYTHONPATH. The limits below are put in place when their modules
are imported, and nothing is imported for it.
"""

import os
import sys
from importlib.machinery import PathFinder

SECONDS = float(os.environ.get("PATIENCE_SECONDS", "60"))
LIMITS = {
    "tracarbon._assembly": {"_SLOW_IMPORT_SECONDS": SECONDS},
    "tracarbon._pipeline": {"START_SECONDS": SECONDS},
    "tracarbon._probing": {"PROBE_SECONDS": SECONDS},
    "tracarbon._schema": {"LOAD_SECONDS": SECONDS},
    "tracarbon._watch": {"BLOCKING_SECONDS": 3600.0},
    "tracarbon.hooks": {"_LAST_SECONDS": SECONDS},
    "tracarbon.locations._http": {"TOTAL_SECONDS": SECONDS, "CONNECT_SECONDS": SECONDS},
    "tracarbon.locations.country": {"_ANSWER_SECONDS": SECONDS / 2, "_WHERE_AM_I_SECONDS": SECONDS / 2},
}


class _Patient:
    """Finds the modules that have limits, and sets these once a module is there."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name in LIMITS else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_set(module):
            execute(module)
            for limit, seconds in LIMITS[name].items():
                if not hasattr(module, limit):
                    raise AttributeError(f"{name} has no {limit} any more")
                setattr(module, limit, seconds)

        spec.loader.exec_module = execute_and_set
        return spec


sys.meta_path.insert(0, _Patient)
