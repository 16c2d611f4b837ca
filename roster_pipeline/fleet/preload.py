"""What every sync needs, loaded once: the fork server of `children.py` imports this module, and its children start with it.

Does not belong here: anything that opens a connection, a thread or the environment; a fork would share it.
"""

from roster_pipeline import contracts
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.sync import recall, unchanged
from roster_pipeline.sync.run import project_models

project_models()
# Of the code that is loaded here, not of what an upgrade puts in its place while this runs.
recall.code_digest(DistrictPull.code)
unchanged.code_digest()
for _resource in contracts.RESOURCES.values():
    _resource.validate(_resource.empty())  # The first validation of a process loads half of Pandera.
