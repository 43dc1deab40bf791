"""YAML without repeated keys, of which PyYAML would keep the last."""

from __future__ import annotations

from typing import Any

import yaml


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


def parse_yaml(text: str | bytes) -> Any:
    """Return the data in a YAML text.

    Raises:
        YAMLError: the text is not YAML, or a mapping has a key twice.
    """
    return yaml.load(text, _UniqueKeyLoader)
