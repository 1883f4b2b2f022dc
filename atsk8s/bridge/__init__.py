"""Where Python meets the C core: the only package that imports the cffi module."""
