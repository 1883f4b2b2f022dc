"""atsk8s: Apache Traffic Server as a caching Kubernetes ingress.  Importing this package has no effect."""

__version__ = "0.1.0"
