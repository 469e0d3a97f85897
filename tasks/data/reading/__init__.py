"""Files and hub names as rows."""
