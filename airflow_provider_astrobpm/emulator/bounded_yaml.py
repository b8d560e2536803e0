"""Read YAML in bounded time: reject deep nesting and nested aliases early."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NESTING = 32  # levels of lists and mappings; each open level makes reading slower
MAX_INTEGER_BITS = 1000  # a longer integer has no ``float``, and Python refuses to print a much longer one
MAX_VALUES = 100_000  # in a document; an alias counts as every value in it


class YamlLimitError(ValueError):
    """The document is nested too deeply or has too many values; the message says which."""


class BoundedLoader(yaml.SafeLoader):
    """Load a document that stays within the limits.

    :raises YamlLimitError: while reading, if the document exceeds a limit.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values: list[int] = [0]
        """The number of values read so far in each open node, innermost last."""
        self._sizes: dict[int, int] = {}
        """The number of values in each node that was read completely."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read one node and everything in it."""
        is_alias = self.check_event(yaml.AliasEvent)
        if self._depth == MAX_NESTING and not is_alias:
            raise YamlLimitError(f"lists and mappings are nested more than {MAX_NESTING} levels deep")
        self._depth += 1
        self._values.append(1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        within = self._values.pop()
        if is_alias:
            if id(node) not in self._sizes:
                raise YamlLimitError("an alias refers to a value that contains it")
            within = self._sizes[id(node)]
        self._sizes[id(node)] = within
        self._values[-1] += within
        if self._values[-1] > MAX_VALUES:
            raise YamlLimitError(
                f"there are more than {MAX_VALUES:,} values, including those that aliases repeat"
            )
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """Read an integer."""
        value = super().construct_yaml_int(node)
        if value.bit_length() > MAX_INTEGER_BITS:
            raise YamlLimitError(f"an integer has more than {MAX_INTEGER_BITS:,} bits")
        return value


BoundedLoader.add_constructor("tag:yaml.org,2002:int", BoundedLoader.construct_yaml_int)
