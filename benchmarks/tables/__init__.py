"""Tables of evidence, a command each, for docs/benchmarks.md; what they have in common is `fleet_sim.tables`."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
