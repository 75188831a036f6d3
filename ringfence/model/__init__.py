"""The declared lab: what it may contain, and what is wrong with one."""

from __future__ import annotations

from ringfence.model.checks import check_lab
from ringfence.model.lab import ANYWHERE, INTERNET, Lab
from ringfence.model.problems import LabError, Problem
from ringfence.model.read import LAB_VARIABLES, Draft, read_lab

__all__ = ["ANYWHERE", "INTERNET", "LAB_VARIABLES", "Draft", "Lab", "LabError", "Problem", "check_lab", "read_lab"]
