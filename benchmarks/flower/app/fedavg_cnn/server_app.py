"""What the server does."""

from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average for so many rounds, and keep the model of each."""
    settings = context.run_config
    results = Path(settings["results"])
    with np.load(settings["initial-model"]) as arrays:
        initial = ArrayRecord({name: torch.from_numpy(arrays[name]) for name in arrays.files})

    def keep(server_round: int, arrays: ArrayRecord) -> None:
        """Write the model of a round; a half-written one never bears the name."""
        fresh = results / "fresh.npz"
        np.savez(fresh, **{name: value.numpy() for name, value in arrays.to_torch_state_dict().items()})
        fresh.rename(results / f"round-{server_round}.npz")

    clients = settings["num-clients"]
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=clients,
        min_available_nodes=clients,
    )
    strategy.start(
        grid=grid,
        initial_arrays=initial,
        train_config=ConfigRecord({"lr": settings["learning-rate"]}),
        num_rounds=settings["num-server-rounds"],
        evaluate_fn=keep,
    )
