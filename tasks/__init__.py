"""Training from the command line: Lightning modules, data modules and their configurations."""
