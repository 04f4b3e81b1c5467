"""One foreign library each, behind our ports."""

import os

# transformers would otherwise be allowed to fetch and run compiled kernels from its hub: a detector has to give the
# same boxes on every machine, also without a network. Read when transformers is imported, hence here.
os.environ["USE_HUB_KERNELS"] = "0"
