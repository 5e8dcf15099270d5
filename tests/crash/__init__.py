"""Killed at named points and at random, again and again: what is delivered is what an undisturbed run delivers."""
