"""The explorer: a state and its picture. The widgets around it are in `explorer.widget`, which needs ipywidgets."""

from fusionlib.explorer.state import State, View, array, images, lines, look, measured, pictures, prior, strategies

__all__ = ["State", "View", "array", "images", "lines", "look", "measured", "pictures", "prior", "strategies"]
