#!/usr/bin/env bash
# A private single-node Slurm for tests, run as root: slurm.sh install | start DIR | stop DIR.
# Exit status 3, with one line on stderr: it cannot be done here.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

die() { echo "slurm.sh: $*" >&2; exit 3; }

missing() {
  local program
  for program in slurmctld slurmd munged sbatch srun scancel squeue sinfo; do
    command -v "$program" >/dev/null || echo -n "$program "
  done
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -y -qq "$@" </dev/null >"$log" 2>&1; }

install() {
  local log packages=(install --no-install-recommends slurm-wlm munge)
  [ -n "$(missing)" ] || return 0
  [ "$(id -u)" = 0 ] || die "installing slurm-wlm needs root"
  command -v apt-get >/dev/null || die "there is no apt-get to install slurm-wlm with"
  log=$(mktemp)
  # The package index is often there already, and updating it is the slow part.
  apt "${packages[@]}" || { apt update && apt "${packages[@]}"; } ||
    die "apt-get failed: $(grep -m1 '^E:' "$log" || tail -n1 "$log") (log: $log)"
  rm -f "$log"
  [ -z "$(missing)" ] || die "still absent after apt-get install: $(missing)"
}

free_port() {
  # Below the ephemeral range, so that no outgoing connection takes it meanwhile.
  local port=$(($1 + RANDOM % 5000))
  while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

write_conf() {
  # config_overrides: else a CPU quota, or more memory than there is, would drain the node.
  # KillWait: below 5, a job that ignores SIGTERM stays in COMPLETING for longer.
  local host plugin=disabled
  host=$(uname -n) && host=${host%%.*}
  tr ' ' '\n' >"$DIR/slurm.conf" <<CONF # Slurm wants one parameter a line, nodes apart
ClusterName=$NODE
SlurmUser=root AuthInfo=socket=$RUN/munge.sock
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port 20000) SlurmdPort=$(free_port 26000)
StateSaveLocation=$DIR/state SlurmdSpoolDir=$RUN/spool
SlurmctldPidFile=$DIR/slurmctld.pid SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log SlurmdLogFile=$DIR/log/slurmd.log
ProctrackType=proctrack/linuxproc TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none MailProg=/bin/true
SelectType=select/cons_tres SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MaxArraySize=100001 MaxJobCount=250000 MinJobAge=300
KillWait=5 ReturnToService=2 SlurmdParameters=config_overrides
CONF
  cat >>"$DIR/slurm.conf" <<CONF
NodeName=$NODE NodeHostname=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000000
PartitionName=debug Nodes=$NODE Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
CONF
  # Left to itself, slurmd may ask systemd for a cgroup; 23.02 made that optional.
  [[ $(slurmctld -V) > "slurm-wlm 23" ]] || plugin=cgroup/v1
  echo "CgroupPlugin=$plugin" >"$DIR/cgroup.conf"
}

launch() {
  # A daemon must not keep the caller's pipes: whoever reads them would never see the end.
  local out="$DIR/log/$1.out"
  "$@" </dev/null >"$out" 2>&1 || die "$1 did not start: $(tail -n1 "$out") (logs: $DIR/log)"
}

start() {
  [ "$(id -u)" = 0 ] || die "starting Slurm needs root"
  [ -z "$(missing)" ] || die "not installed: $(missing)"
  [ ! -e "$DIR/nodename" ] || die "$DIR holds a cluster already; stop it first"
  mkdir -p "$DIR/state" "$DIR/log" 2>/dev/null || die "cannot write below $DIR"
  trap stop EXIT
  NODE=test$$ # unlike any other running cluster's on this host
  echo "$NODE" >"$DIR/nodename"
  # A unix socket's path has at most 107 characters, and slurmd's own add some 30.
  [ ${#DIR} -le 60 ] || ln -s "$(mktemp -d /tmp/slurm.XXXXXX)" "$DIR/run"
  mkdir -p "$DIR/run/spool"
  RUN=$(readlink -f "$DIR/run")
  (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge.key")
  write_conf
  # --force: a private temporary folder, or one below another user's, is no error here.
  launch munged --force --key-file="$DIR/munge.key" --socket="$RUN/munge.sock" \
    --pid-file="$DIR/munged.pid" --seed-file="$DIR/munge.seed" --log-file="$DIR/log/munged.log"
  launch slurmctld -f "$DIR/slurm.conf"
  launch slurmd -f "$DIR/slurm.conf" -N "$NODE"
  wait_until 30 idle || die "the node was not idle within 30 s (logs: $DIR/log)"
  trap - EXIT
  echo "export SLURM_CONF=$DIR/slurm.conf"
}

wait_until() {
  local end=$((SECONDS + $1))
  until "${@:2}"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

client() { SLURM_CONF="$DIR/slurm.conf" timeout 5 "$@" 2>>"$DIR/log/clients.log"; }
idle() { [ "$(client sinfo -h -o %T)" = idle ]; }
no_jobs() { [ -z "$(client squeue -h)" ]; }
gone() { [ -z "$(daemon_pids)" ]; }

daemon_pids() {
  # A pid file may outlive its process, and the number be another's by now. A zombie, which a
  # container's first process may never reap, has no command line.
  local name pid
  for name in slurmd slurmctld munged; do
    pid=$(cat "$DIR/$name.pid" 2>/dev/null) || continue
    ! grep -qaF -- "$DIR/" "/proc/$pid/cmdline" 2>/dev/null || echo "$pid"
  done
}

job_pids() {
  # slurmstepd overwrites its arguments, but has its log open; its tasks have the node's name.
  local comm
  for comm in $(grep -lx slurmstepd /proc/[0-9]*/comm); do
    find "${comm%comm}fd" -lname "$DIR/log/*" -print -quit | cut -d/ -f3
  done
  grep -lzFx "SLURMD_NODENAME=$NODE" /proc/[0-9]*/environ | cut -d/ -f3
} 2>/dev/null

stop() {
  [ -e "$DIR/nodename" ] || return 0
  NODE=$(cat "$DIR/nodename")
  ! client scancel --partition=debug || wait_until 6 no_jobs || true # more than KillWait
  kill $(daemon_pids) 2>/dev/null || true
  wait_until 5 gone || kill -9 $(daemon_pids) 2>/dev/null || true
  kill -9 $(job_pids || true) 2>/dev/null || true
  rm -rf "$(readlink -f "$DIR/run")" "$DIR/run" "$DIR/state" "$DIR/nodename"
}

case "${1-} $#" in
"install 1") install ;;
"start 2" | "stop 2")
  DIR=$(realpath -m -- "$2")
  [[ $DIR != *[[:space:]]* ]] || die "Slurm takes no path with white space: $DIR"
  "$1"
  ;;
*) echo "usage: slurm.sh install | start DIR | stop DIR" >&2 && exit 2 ;;
esac
