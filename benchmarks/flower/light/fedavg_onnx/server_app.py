"""What the server does: as in the app with PyTorch, of one array."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average for so many rounds, and keep the model of each."""
    settings = context.run_config
    results, clients = Path(settings["results"]), settings["num-clients"]

    def keep(server_round: int, arrays: ArrayRecord) -> None:
        """Write the model of a round; a half-written one never bears the name."""
        fresh = results / "fresh.npz"
        np.savez(fresh, theta=arrays.to_numpy_ndarrays()[0])
        fresh.rename(results / f"round-{server_round}.npz")

    FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients).start(
        grid=grid,
        initial_arrays=ArrayRecord([np.load(settings["initial-model"])]),
        train_config=ConfigRecord({"lr": settings["learning-rate"]}),
        num_rounds=settings["num-server-rounds"],
        evaluate_fn=keep,
    )
