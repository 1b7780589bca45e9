"""A Flower app: FedAvg of a small CNN on onnxruntime."""
