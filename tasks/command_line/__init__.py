"""What the command line says: short help, and mistakes in one line."""
