"""placeholder until the host module lands"""

from __future__ import annotations

import hashlib
import json
import os
import platform

from . import MEASURE_VERSION


def fingerprint() -> dict:
    return {"cpu": platform.processor(), "cores": os.cpu_count(), "os": platform.system(), "python": platform.python_version()}


def environment_key(found: dict, threads: int, device: str) -> str:
    text = json.dumps([found, threads, device, MEASURE_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
