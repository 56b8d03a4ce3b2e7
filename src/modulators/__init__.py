"""Modules that change the residual stream of a frozen model: trained, controlled, measured."""
