"""These stories are told with the roads that the services' own unit tests are driven on."""

import sys
from pathlib import Path

_UNIT = Path(__file__).parent.parent / "unit"
sys.path += [str(_UNIT / "journeys"), str(_UNIT / "playbook")]
