"""What a run and a reader survive: killed trainings (``kills``) and damaged files (``fuzz``); see docs/reliability.md."""
