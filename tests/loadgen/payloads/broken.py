"""A payload with a defect, which child processes and Ray actors can load."""

from loadgen.payloads import Payload


def broken_payload() -> Payload:
    """Return a payload whose check of an answer raises TypeError."""
    payload = Payload(b"{}")
    object.__setattr__(payload, "contains", 5)
    return payload
