from typing import Any

sequential: Any
