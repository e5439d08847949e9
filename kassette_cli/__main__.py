"""``python -m kassette_cli``; nothing else lives here."""

import sys

from kassette_cli.main import main

sys.exit(main())
