"""Import paths that scripts outside this repository use; the implementation is `knowundo.data`."""
