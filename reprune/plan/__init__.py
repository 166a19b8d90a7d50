"""Define a pruning plan, its checks against a model, its JSON, and the modules that remember theirs."""

from .origin import forget_plan, plan_of, remember_plan
from .pruning_plan import PruningPlan

__all__ = ["PruningPlan", "forget_plan", "plan_of", "remember_plan"]
