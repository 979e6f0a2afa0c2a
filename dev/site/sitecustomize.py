"""Site: run by every Python process that a test of a mutant starts; puts the mutant in its place there too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from mutant_import import install_from_environment

install_from_environment()
