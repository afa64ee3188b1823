"""The data plane: what turns request bytes into reply bytes, compiled and without the GIL."""
