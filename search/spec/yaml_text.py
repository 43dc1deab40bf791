"""YAML without repeated keys, of which PyYAML would keep the last, and with JSON's characters."""

from __future__ import annotations

from typing import Any

import yaml

from serving.safe_yaml import check_yaml, reporting_values


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is given twice; remove one", key.start_mark
                )
            if name is not None:
                seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Join the escapes of a character beyond \\uffff, which JSON writes as two."""
        text = super().construct_scalar(node)
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise yaml.constructor.ConstructorError(
                None, None, "the text has half of a surrogate pair", node.start_mark
            ) from None


def parse_yaml(text: str | bytes, allow_aliases: bool = True) -> Any:
    """Return the data in a YAML text.

    Raises:
        YAMLError: the text is not YAML, a mapping has a key twice, a string is not Unicode, or the
            text exceeds a limit of `serving.safe_yaml`.
    """
    check_yaml(text, allow_aliases)
    with reporting_values():
        return yaml.load(text, _UniqueKeyLoader)
