"""YAML that is read in bounded time: deep nesting is refused early, and so are aliases of aliases of aliases."""

from __future__ import annotations

import yaml

MAX_NESTING = (
    32  # levels of lists and mappings within each other; reading takes the longer the more of them are open
)
MAX_VALUES = 100_000  # in a document, an alias counted as all that it stands for


class YamlLimitError(ValueError):
    """A document that is nested too deeply, or holds too many values; the message says which."""


class BoundedLoader(yaml.SafeLoader):
    """Reads a document that stays within the bounds.

    :raises TooMuchError: while it reads, for any other.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values: list[int] = [0]
        """How many values were read within each node that is being read, the innermost last."""
        self._sizes: dict[int, int] = {}
        """How many values each node stands for that was read whole."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read one node with all that is in it."""
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
                raise YamlLimitError("an alias stands for a value that it is a part of")
            within = self._sizes[id(node)]
        self._sizes[id(node)] = within
        self._values[-1] += within
        if self._values[-1] > MAX_VALUES:
            raise YamlLimitError(
                f"there are more than {MAX_VALUES:,} values, with all that aliases stand for"
            )
        return node
