#!/usr/bin/env python3
"""A real job of SLURM on this machine alone: deploy/slurm/train.sbatch as it is, two tasks, until its time limit, requeued, and on to the end.

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    SPLITMASK=target/debug/splitmask setup/slurm_check.py            as root; about eight minutes

Starts munged, slurmctld and slurmd of its own in a temporary folder on the loopback interface, submits the job with a limit of three minutes (the script
has SIGTERM come two minutes before it), and waits. Fails unless the limit was reached, SLURM queued the job again, it ended with 0, and its losses and
weights are those of two ranks that nobody stopped, line by line. --steps: more for a machine that is done within the first minute.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import small_run
from program import SPLITMASK

ROOT = Path(__file__).resolve().parents[1]

CONF = """ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={next}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SwitchType=switch/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def asked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()


def two_free_ports() -> int:
    for port in range(17000, 18000, 2):
        with socket.socket() as a, socket.socket() as b:
            try:
                a.bind(("127.0.0.1", port)), b.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue
    raise SystemExit("no two free ports")


def by_hand(config: Path, folder: Path) -> None:
    """The same run on two ranks that nobody stops."""
    port = str(two_free_ports() + 5000)
    ranks = []
    for rank in "01":
        env = os.environ | {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        log = (folder / f"undisturbed-{rank}.log").open("wb")
        command = [SPLITMASK, "train", "--config", config, "--set", f'run.dir="{folder}/undisturbed"']
        ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    if any([rank.wait() for rank in ranks]):
        raise SystemExit((folder / "undisturbed-0.log").read_text())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=2500)
    options.add_argument("--keep", action="store_true", help="leave the folder with all logs there")
    options = options.parse_args()
    for program in ("munged", "slurmctld", "slurmd", "sbatch", "scontrol"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is missing: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge")
    if os.geteuid():
        raise SystemExit("slurmd starts jobs of users, so it needs root; run this as root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-check-"))
    folder.chmod(0o755)
    daemons: list[subprocess.Popen] = []
    try:
        job(folder, options.steps, daemons)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
        if options.keep:
            print(f"left: {folder}")
        else:
            shutil.rmtree(folder)


def job(folder: Path, steps: int, daemons: list) -> None:
    config = small_run.make(folder, steps)
    began = time.time()
    by_hand(config, folder)
    print(f"{steps} steps on two ranks, undisturbed: {time.time() - began:.0f} s", flush=True)

    host, port = socket.gethostname().split(".")[0], two_free_ports()
    (folder / "spool").mkdir(), (folder / "state").mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, port=port, next=port + 1, processors=os.cpu_count()))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    os.environ["SLURM_CONF"] = str(conf)
    os.environ["PATH"] = f"{Path(SPLITMASK).absolute().parent}:{os.environ['PATH']}"
    for command in (
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.sock", f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
    ):
        log = (folder / f"{command[0]}.out").open("wb")
        daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
        time.sleep(2)
        if daemons[-1].poll() is not None:
            raise SystemExit(f"{command[0]} ended: {(folder / f'{command[0]}.out').read_text()}")
    print(asked("sbatch", "--version"), "·", asked("sinfo", "--noheader"), flush=True)

    # The script as it is; what a user gives on the command line, and a limit for people who wait.
    sbatch = ["sbatch", "--parsable", f"--chdir={folder}", "--ntasks-per-node=2", "--cpus-per-task=1", "--time=3", str(ROOT / "deploy/slurm/train.sbatch"), str(config)]
    print(" ".join(sbatch), flush=True)
    number = asked(*sbatch)
    log, told, states = folder / f"splitmask-{number}.log", 0, []
    deadline = time.time() + 1800
    while True:
        shown = asked("scontrol", "show", "job", number, "--oneliner")
        fields = dict(word.split("=", 1) for word in shown.split() if "=" in word)
        state = (fields["JobState"], fields["Restarts"], fields["Reason"])
        if not states or states[-1] != state:
            states.append(state)
            print(f"{time.time() - began:6.0f} s: {state[0]}, restarts {state[1]}, reason {state[2]}", flush=True)
        if log.exists():
            lines = [line for line in log.read_text().splitlines() if "train.sbatch" in line or "stopp" in line or "resum" in line or " goes on" in line]
            for line in lines[told:]:
                print(f"         {line[:200]}", flush=True)
            told = len(lines)
        if fields["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
            break
        if time.time() > deadline:
            raise SystemExit(f"the job does not end:\n{log.read_text()}")
        time.sleep(2)
    if fields["JobState"] != "COMPLETED" or fields["ExitCode"] != "0:0":
        raise SystemExit(f"{fields['JobState']} {fields['ExitCode']}:\n{log.read_text()}\n{(folder / 'slurmctld.log').read_text()[-3000:]}")
    if int(fields["Restarts"]) < 1:
        raise SystemExit("the run was over before its time limit: give more --steps")
    small_run.same(folder / "undisturbed", folder / "run")
    print(f"SLURM: the time limit was reached, and the job went on, {fields['Restarts']} time(s); it ended with 0", flush=True)


if __name__ == "__main__":
    sys.exit(main())
