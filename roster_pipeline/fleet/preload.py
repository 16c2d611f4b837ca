"""Loads once what every sync needs: the fork server of `children.py` imports this module, and its children inherit it.

Does not belong here: anything that opens a connection, starts a thread or reads the environment, because every child would share it.
"""

from roster_pipeline import contracts
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.sync import restore, unchanged
from roster_pipeline.sync.run import project_models

project_models()
# Compute the digests now, from the files of the loaded code. An upgrade may replace these files while this process runs.
restore.code_digest(DistrictPull.code)
unchanged.code_digest()
for _resource in contracts.RESOURCES.values():
    _resource.validate(_resource.empty())  # The first validation of a process loads half of Pandera.
