"""One script per claim; results as JSON with the machine and the commit they were made on."""
