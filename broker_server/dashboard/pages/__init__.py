"""What stands on each page: a look -> one frozen value that the template of the same name shows."""
