"""Usage traces: when calls arrive and how many tokens they use. Read from published files, or generated.

No prompt, no user and no tenant is in a trace: whose call it is, is decided by whoever replays it. It
must know nothing of services, accounts or prices.

| format | where it comes from |
|---|---|
| Azure 2023 CSV | Azure LLM inference trace 2023, CC BY 4.0; P. Patel et al., "Splitwise", ISCA 2024 |
| Mooncake JSON lines | Mooncake trace release, Apache-2.0; R. Qin et al., "Mooncake", FAST 2025 |
| generated | `generated`: fitted to the published statistics of the Azure trace |
"""

from tokengrid.traces.call import BrokenLine, Call, UnreadableTrace
from tokengrid.traces.generated import generate
from tokengrid.traces.reading import Reader, read

__all__ = ["BrokenLine", "Call", "Reader", "UnreadableTrace", "generate", "read"]
