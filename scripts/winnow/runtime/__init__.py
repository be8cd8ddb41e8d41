"""How a job runs, not what it computes: devices, warm workers, progress. Excluded from every code digest."""

import os

# Torch reads it when it is loaded: tensors of 2 MB and more are asked for in huge pages, where the kernel has them on
# request. Of cutting a VGG-16 half the processor's time was the handing out of small ones.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
