"""A server that averages four numbers."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average for so many rounds."""
    settings = context.run_config
    clients, results = settings["num-clients"], Path(settings["results"])

    def note(server_round: int, _: ArrayRecord) -> None:
        (results / f"round-{server_round}.npz").touch()

    FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients).start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(4, np.float32)]),
        num_rounds=settings["num-server-rounds"],
        evaluate_fn=note,
    )
