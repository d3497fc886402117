from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "cancellation"))  # `stepping` is used here too
sys.path.append(str(Path(__file__).parent.parent / "wire"))  # and `openai_samples`
