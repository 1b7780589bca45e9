"""Where predictions go. Each output takes them at once and loses the oldest when its way out is slower than the model.

    background      a queue and a thread between the loop and whatever may block
    callback        a Python function                 json_lines      a file that rotates, or standard output
    webhook         HTTP POST                         recent          the last few, for the local API
    federation      `Spoke` to the supervisor         home_assistant  MQTT discovery, and questions that come back

None of them ever has the sample: ids, names, numbers.
"""
