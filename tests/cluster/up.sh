#!/usr/bin/env bash
# Start a SLURM of one node with two fake GPUs, for tests: no systemd, cgroups or accounting, loopback only. Run as
# root:
#
#   apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge
#   tests/cluster/up.sh DIRECTORY      # prints: <host> idle 2 ... gpu:fake:2
#   tests/cluster/down.sh DIRECTORY
#
# DIRECTORY is made and holds all state. Only the two files in /etc/slurm lie outside: the executor's job step drops
# every SLURM_* variable, SLURM_CONF among them, so no other place would be found.
set -euo pipefail
directory=${1:?usage: up.sh DIRECTORY}
node=$(hostname -s)

# What a killed test left is cleared away; anybody else's configuration stays.
if left=$(sed -n 's|^StateSaveLocation=\(.*\)/state$|\1|p' /etc/slurm/slurm.conf 2>/dev/null) &&
    [ -s "$left/owner" ] && ! kill -0 "$(cat "$left/owner")" 2>/dev/null; then
    "$(dirname "$0")/down.sh" "$left"
fi
if [ -e /etc/slurm/slurm.conf ] || [ -e /etc/slurm/gres.conf ]; then
    echo "error: /etc/slurm holds somebody's configuration: none is written over it" >&2
    exit 1
fi

mkdir -p "$directory"/{state,spool,log,run} /etc/slurm
directory=$(realpath "$directory")
echo $PPID > "$directory/owner"

# A munge daemon of its own, so that the machine's stays as it is.
head -c 1024 /dev/urandom > "$directory/munge.key"
chmod 600 "$directory/munge.key"
munged --force --num-threads=2 --key-file="$directory/munge.key" --seed-file="$directory/munge.seed" \
    --socket="$directory/munge.socket" --pid-file="$directory/run/munged.pid" --log-file="$directory/log/munged.log"

cat > /etc/slurm/slurm.conf <<CONF
ClusterName=winnow
SlurmctldHost=$node(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$directory/munge.socket
CredType=cred/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/run/slurmctld.pid
SlurmdPidFile=$directory/run/slurmd.pid
SlurmctldLogFile=$directory/log/slurmctld.log
SlurmdLogFile=$directory/log/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=5
MinJobAge=300
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/{print int($2/1024)-512}' /proc/meminfo) Gres=gpu:fake:2
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
# SLURM tells jobs apart by device only where the files are character devices.
cat > /etc/slurm/gres.conf <<CONF
NodeName=$node Name=gpu Type=fake File=/dev/null
NodeName=$node Name=gpu Type=fake File=/dev/zero
CONF

slurmctld
slurmd -N "$node"
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && exec sinfo --noheader --format='%n %T %c %m %G'
    sleep 0.2
done
echo "error: the node is not idle after 20 s; see $directory/log" >&2
sinfo --long >&2 || true
exit 1
