"""Requests: how they are read from a file, mixed and judged."""

from loadgen.payloads.mixing import combine, mix
from loadgen.payloads.payload import Payload
from loadgen.payloads.reader import read_payloads, referenced_files

__all__ = ["Payload", "combine", "mix", "read_payloads", "referenced_files"]
