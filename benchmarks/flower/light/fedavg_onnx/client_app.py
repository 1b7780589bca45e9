"""What a device does, without PyTorch."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.models.model import OptimizerState
from fd_runtime.models.onnx_model import OnnxTrainSession

app = ClientApp()
CLASSES = 10


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the received parameters on this device's images and send them back."""
    settings = context.run_config
    path = Path(context.node_config["dataset-path"])
    with np.load(path) as rows:
        private = LabelledRows(rows["x"].astype(np.float32) / 255, rows["y"], CLASSES)
    step = (path.parent / "train_step.onnx").read_bytes()
    (theta,) = msg.content["arrays"].to_numpy_ndarrays()
    session = OnnxTrainSession(step, OptimizerState.fresh(theta, ("velocity",)))
    terms = FitTerms(settings["local-epochs"], settings["batch-size"], msg.content["config"]["lr"])
    fit(session, private, None, terms, np.random.default_rng())
    metrics = MetricRecord({"num-examples": len(private.labels)})
    content = RecordDict({"arrays": ArrayRecord([session.state.theta]), "metrics": metrics})
    return Message(content=content, reply_to=msg)
