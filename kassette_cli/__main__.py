"""``python -m kassette_cli``, and nothing else."""

import sys

from kassette_cli.main import main

sys.exit(main())
