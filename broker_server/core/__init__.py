"""A federation as the server sees it, as pure folds: no I/O, no clock, no thread and no chance."""
