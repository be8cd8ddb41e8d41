# Needs what the user grants a run, and the machine. Makes the plan that rules' threads and resources are read from.

from winnow.runtime import devices
from winnow.workflow import resources

# What is granted without a word on the command line: GPUs as many as the run may see, memory as much as there is. A job
# that is submitted has a machine of its own, of which this one knows nothing; the Snakemake in it is told what it got.
SUBMITS = workflow.nodes is not None or workflow.remote_exec
GRANTED = {name: workflow.global_resources[name].value for name in workflow.global_resources}
GPUS = resources.gpus(GRANTED.get("gpu"), devices.candidates, SUBMITS)
MEMORY_MB = None if SUBMITS else GRANTED.get("mem_mb") or resources.memory_mb()
if not SUBMITS:
    workflow.register_resource("gpu", GPUS)
    workflow.register_resource("mem_mb", MEMORY_MB)
PLAN = resources.Plan(CONFIG, resources.Machine(workflow.cores or 1, GPUS, MEMORY_MB))
