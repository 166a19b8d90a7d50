"""Find what an optimizer keeps of parameters: groups, state, and other references to them."""

from .checks import check_parameters, check_references, check_states, state_obstacle
from .keeper import Entry, Keeper

__all__ = ["Entry", "Keeper", "check_parameters", "check_references", "check_states", "state_obstacle"]
