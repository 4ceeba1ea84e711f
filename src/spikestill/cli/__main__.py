"""``python -m spikestill.cli``, for where the console script is not installed."""

from spikestill.cli.main import main

raise SystemExit(main())
