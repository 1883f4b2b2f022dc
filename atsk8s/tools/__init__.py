"""The offline tools' work: the plugin's own code over manifests or a last good state; `__main__` prints what it finds."""
