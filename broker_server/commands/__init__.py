"""`broker-server COMMAND`: a module for what an operator types; `commanding` and `giving` are what they share."""
