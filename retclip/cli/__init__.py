"""The command line: one module per group; heavy libraries are imported inside the commands."""
