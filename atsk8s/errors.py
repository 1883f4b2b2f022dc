"""Every way in which something can fail, and every reason that an object can be rejected for.

Three families, told apart by whose fault it is and what follows:

* `RejectError`: the object's fault.  It costs that object, or the part of it that is named, and becomes a verdict.
* `KubeError`: the world's fault.  Retried with backoff; what was known stays in use.
* `InvariantError`: ours.  The commit at hand is dropped, the published table stays, and an alarm is raised.

`SettingsError` is the user's fault at start-up: it names the option, what is wrong with it and what to do.
"""

from enum import StrEnum, unique


@unique
class Reason(StrEnum):
    """Why an object, or a part of one, was rejected.  CamelCase, as a Kubernetes Condition's reason is."""

    MALFORMED = "Malformed"
    TOO_LARGE = "TooLarge"
    UNSUPPORTED = "Unsupported"
    UNKNOWN_KIND = "UnknownKind"
    DUPLICATE = "Duplicate"
    INVALID_HOST = "InvalidHost"
    INVALID_PATH = "InvalidPath"
    INVALID_BACKEND = "InvalidBackend"
    INVALID_CERTIFICATE = "InvalidCertificate"
    INVALID_KEY = "InvalidKey"
    CERTIFICATE_EXPIRED = "CertificateExpired"
    KEY_MISMATCH = "KeyMismatch"
    INVALID_ADDRESS = "InvalidAddress"
    INVALID_ANNOTATION = "InvalidAnnotation"
    UNKNOWN_ANNOTATION = "UnknownAnnotation"
    NOT_FOUND = "NotFound"
    PORT_NOT_FOUND = "PortNotFound"
    CONFLICT = "Conflict"
    FORBIDDEN = "Forbidden"
    LIMIT_EXCEEDED = "LimitExceeded"
    UNKNOWN_SETTING = "UnknownSetting"
    INVALID_SETTING = "InvalidSetting"


class AtsK8sError(Exception):
    """Root of what this project raises on purpose."""


class RejectError(AtsK8sError):
    """An object, or a named part of it, cannot be used.

    Args:
        reason: what kind of fault it is; a metric label, so one of a fixed set.
        message: names the field, what is wrong and what to do.  Never holds a secret's bytes.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class KubeError(AtsK8sError):
    """The API server, or the way to it, failed.  The message names what was asked and what came back."""


class InvariantError(AtsK8sError):
    """Something that our own code guarantees did not hold."""


class SettingsError(AtsK8sError):
    """A start-up option is unusable.  The message names the option, the value's fault and the remedy."""
