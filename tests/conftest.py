"""Shape annotations are executed, threads are few, and the network is off."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[switch] = "1"

from hypothesis import HealthCheck, settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["sefar_core", "sefar_mllm"], "beartype.beartype")

# How long an example takes says nothing on a machine under load.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
