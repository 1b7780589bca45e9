"""Live samples: from sources through the model to whoever wants to know, and what is noticed on the way.

    sources --captured--> sample_queue --batches--> predictor --predictions--> store, outputs
                                                        |
                                                        +--features, confidences--> drift --> recalibration, alarm

    predictor      samples -> probabilities, by any thread, with the weights of the last accepted training
    latency        how long each stage took, in fixed bins
    drift          are samples and confidences still what the bundle was made with?
    calibration    how sure the model may be here: temperature and class prior from labelled rows
    loop           joins them;  serving: builds them from the settings;  outputs/: where predictions go

In the worker. What is deliberately absent: training (`learner`), the private store, any word to the federation.
"""
