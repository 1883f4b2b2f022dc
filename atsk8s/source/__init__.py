"""Where Kubernetes objects come from: an API server (`kube`) or a directory of YAML (`manifests`), behind `interface.Source`.

Only package that does API I/O.  `kinds` says what is watched, `store` holds it, `interface` is what the controller sees.
"""
