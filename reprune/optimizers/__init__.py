"""What an optimizer keeps of parameters: its groups, its state, and whatever else refers to them."""

from .checks import check_parameters, check_references, check_states, state_obstacle
from .keeper import Entry, Keeper

__all__ = ["Entry", "Keeper", "check_parameters", "check_references", "check_states", "state_obstacle"]
