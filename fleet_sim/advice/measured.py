"""What was measured, and in which table: the only numbers of `fleet_sim.advice` that are not computed from the plan.

"demo federation" and "table ..." are of docs/benchmarks.md, and a test holds them to it. "pilot" are the runs that
methods were chosen by (digits and MNIST, 10 or 20 devices, 1 to 5 seeds, other code): hints, where there is no table.
Either says where a line was drawn, not what will happen.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet_sim.baselines.weight_codec import WeightCodec

HOMOGENEOUS_TV = 0.2
"""Mean total variation beyond chance. Dirichlet splits of digits and MNIST over 10 devices have 0.1 (alpha = 10), 0.33
(1), 0.43 (0.5), 0.68 (0.1). Pilot, IID and alpha = 1: mean and competence are equal (90.4 and 90.8, 89.1 and 89.3)."""
SKEWED_TV = 0.5
"""Likewise. Pilot, digits: at alpha = 0.5 the better rule depends on the schedule (91.5 and 92.8, 90.7 and 90.0), at
0.1 competence leads (88.7 and 93.0)."""

ALONE_LABELS = 10
"""Of every class. Pilot, MNIST: with 100 labels of ten classes the server alone is as good as all data in one place."""
CANARY_LABELS = 20
"""Of every class. Demo federation: 200 canaries of ten classes keep a liar of ten from mattering."""

FEDAVG_UP: Mapping[WeightCodec, float] = {"f32": 4.0, "int8": 1543 / 3610, "int4": 586 / 3610}
FEDAVG_DOWN: Mapping[WeightCodec, float] = {"f32": 4.0, "int8": 1716 / 3610, "int4": 747 / 3610}
"""Bytes a parameter, deflated. Demo federation: rows "FedAvg, tail", 3,610 parameters, mean of 15 rounds."""

EVIDENCE_ALONE = "demo federation: server only + 200 canary labels 95.0 %, competence FD 87.4 %, without them 65.2 %"
EVIDENCE_WHOLE = "demo federation: FedAvg of the whole model 90.2 %, competence FD 87.4 %, FedAvg of the tail 80.6 %"
EVIDENCE_EQUAL = "table Dirichlet splits, MNIST, alpha = 1: mean 93.5 %, competence 93.3 %, local only 82.0 %"
EVIDENCE_SKEW = "demo federation: competence FD leads FD by the mean by 3.6 ± 0.9 points"
EVIDENCE_LIAR = "demo federation, a liar of ten: no clip 10.5 %, clip 45.1 %, clip and canaries 87.5 %"
EVIDENCE_NEW = "demo federation: competence FD 87.4 %, server only 65.2 %, local only 38.0 %"
EVIDENCE_DP = "table private heads, MNIST, 2,500 rows a device: epsilon 8 costs 2.6, 2 costs 3.6, 1 costs 4.5 points"
EVIDENCE_DOMAIN = "table weak spots, MNIST: clothes as probes 66.2 %, the factory's model alone 75.9 %"
