"""Reading a list, under the path that scripts outside this repository import it from."""

from knowundo.data.lists.reading import read_list

__all__ = ["read_list"]
