#!/usr/bin/env bash
# A four-job sweep through a real SLURM of one node, this machine; as root, with Debian's packages:
#   apt-get install slurm-wlm munge
# Everything lies in a folder that is removed at the end, and no daemon is left behind. PYTHON is trustml's.
set -euo pipefail
PYTHON=${PYTHON:-python3}
for tool in munged slurmctld slurmd sbatch; do
  command -v "$tool" > /dev/null || { echo "$tool is missing; apt-get install slurm-wlm munge" >&2; exit 1; }
done
here=$(mktemp -d)
export SLURM_CONF=$here/slurm.conf
export TRUSTML_CACHE_DIR=$here/cache

daemon() {  # PID_FILE COMMAND...: started, and ended with this script
  pid_files+=("$1")
  "${@:2}"
}

finish() {
  for file in "${pid_files[@]}"; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  rm -rf "$here"
}
pid_files=()
trap finish EXIT

mkdir "$here/state" "$here/spool" "$here/work"
chmod 755 "$here"
head -c 128 /dev/urandom > "$here/munge.key"
chmod 600 "$here/munge.key"
node=$(hostname -s)
cat > "$SLURM_CONF" <<END
ClusterName=trustml
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$here/munge.socket
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.log
# a container has neither systemd nor cgroups of its own, and needs no accounting
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
END

daemon "$here/munged.pid" munged --force --socket="$here/munge.socket" --key-file="$here/munge.key" \
  --pid-file="$here/munged.pid" --log-file="$here/munged.log" --seed-file="$here/munged.seed"
daemon "$here/slurmctld.pid" slurmctld
daemon "$here/slurmd.pid" slurmd
for _ in $(seq 60); do
  sinfo --noheader --format=%t 2>/dev/null | grep -q idle && break
  sleep 0.5
done
slurmctld -V
sinfo

cd "$here/work"
"$PYTHON" -m trustml_cli -m launcher=slurm task=fgsm trainer=smoke model=logistic task.epsilon=0.05,0.1,0.2,0.3 \
  hydra.launcher.cpus_per_task=1 hydra.launcher.mem_gb=2

squeue --states=all --format="%.8i %.10j %.10T %.10M %R" | tee "$here/queue"
[ "$(grep -c COMPLETED "$here/queue")" = 4 ]
"$PYTHON" - <<'END'
from pathlib import Path
import pandas

(sweep,) = Path("outputs/multirun").iterdir()
table = pandas.read_csv(sweep / "sweep.csv")
print(table[["epsilon", "robust_accuracy", "status", "run"]].to_string(index=False))
assert table.status.tolist() == ["completed"] * 4, table.status
assert sorted(table.epsilon) == [0.05, 0.1, 0.2, 0.3]
logs = [path.read_text() for path in sweep.glob("*/trustml.log")]
trained = sum("training model" in log for log in logs)
print(f"trained {trained} time, found {sum('was trained before' in log for log in logs)} times")
assert trained == 1
END
echo "slurm: passed in $SECONDS s"
