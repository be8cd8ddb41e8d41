#!/usr/bin/env bash
# End the SLURM that up.sh started with DIRECTORY, by the process numbers that its daemons recorded, and remove its
# files.
set -euo pipefail
directory=$(realpath "${1:?usage: down.sh DIRECTORY}")
[ -e "$directory/owner" ] || { echo "error: up.sh did not make $directory" >&2; exit 1; }

if grep -qsF "StateSaveLocation=$directory/state" /etc/slurm/slurm.conf; then
    scancel --me 2>/dev/null || true
    for _ in $(seq 100); do
        [ -z "$(squeue --noheader --states=RUNNING,COMPLETING 2>/dev/null)" ] && break
        sleep 0.1
    done
fi
for daemon in slurmd slurmctld munged; do
    pid=$(cat "$directory/run/$daemon.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
done
if grep -qsF "StateSaveLocation=$directory/state" /etc/slurm/slurm.conf; then
    rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
fi
rm -rf "$directory"
