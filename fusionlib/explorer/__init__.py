"""The explorer: a state and its picture. The widgets around it are in `explorer.widget`, which needs ipywidgets."""

from fusionlib.explorer.export import lines, pictures
from fusionlib.explorer.rules import prior, strategies
from fusionlib.explorer.state import State, View, array, images, look, measured

__all__ = ["State", "View", "array", "images", "lines", "look", "measured", "pictures", "prior", "strategies"]
