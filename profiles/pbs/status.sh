#!/bin/sh
# Print what has become of a PBS job: running (or waiting), success or failed.
report=$(qstat -x -f "$1" 2>&1)
case $report in
    *"Exit_status = 0"*) echo success ;;
    *"Exit_status = "* | *"job_state = F"*) echo failed ;;
    # The server does not remember it. Whether the outputs are there, Snakemake checks.
    *"Unknown Job"*) echo success ;;
    # Waiting, running, or the server does not answer for a while.
    *) echo running ;;
esac
