"""Killed trainings (``kills``) and damaged files (``fuzz``), and what becomes of them: see docs/reliability.md."""
