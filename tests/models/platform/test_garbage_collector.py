"""What is loaded is left out of garbage collection."""

import subprocess
import sys

from models.platform.garbage_collector import THRESHOLDS

SCRIPT = """
import gc
from models.platform.garbage_collector import freeze_garbage_collector
freeze_garbage_collector()
print(gc.get_freeze_count(), *gc.get_threshold())
"""


def test_loaded_modules_are_frozen() -> None:
    # When a process has frozen the collector
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.split()

    # Then it has excluded the objects of the modules, and collects less often
    assert int(output[0]) > 1000
    assert tuple(map(int, output[1:])) == THRESHOLDS
