"""One module a format; each has zoo(), which yields (file name, bytes)."""
