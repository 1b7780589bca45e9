"""What devices in the field have: sessions and probes of their own each, and a worker that answers at once."""

from edge_agent.learning.seen import SeenProbes
from edge_agent.worker import InlineWorker
from edge_agent.worker_core import WorkerCore


class OwnModels:
    """`fleet_sim.federation.cores.Cores` that share nothing: the oracle for those that do."""

    def __init__(self, public):
        self._public = public

    def open(self, plan):
        model = plan.bundle.open("onnxruntime")
        probes = None if self._public is None else SeenProbes(self._public, model)
        return WorkerCore(model, probes, plan.private, plan.checkpoint, device=plan.device, space=plan.space)

    def worker(self, core, deliver):
        return InlineWorker(core.handle, deliver)

    def settle(self):
        pass
