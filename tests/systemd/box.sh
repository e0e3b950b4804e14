#!/bin/bash
# Boot this machine's systemd as PID 1 of private namespaces and run one script under it.
#
#   box.sh SCRIPT OUTPUT_DIRECTORY [SOURCE:TARGET]...
#
# The script runs as root in a service of that systemd, over a throwaway copy-on-write layer of /, with
# a network, process table and cgroup tree of its own; nothing outside changes. Its output goes to
# OUTPUT_DIRECTORY/log; box.sh ends with its exit status (124 after BOX_TIMEOUT_S seconds). Every
# SOURCE directory appears read-only at TARGET. Needs root, util-linux and systemd.
set -euo pipefail

enter_namespaces() {
  local status=0
  BOX_NAME=fedd-box-$$
  BOX_WORK=$(mktemp -d)
  export BOX_NAME BOX_WORK
  timeout --kill-after=5 "${BOX_TIMEOUT_S:-300}" \
    unshare --mount --pid --fork --kill-child --net --uts --ipc bash "$0" @cgroup "$@" || status=$?
  # PID 1 of the box is gone, and its processes with it; the directories of its cgroups stay behind.
  local tree
  for tree in /sys/fs/cgroup/"$BOX_NAME" /sys/fs/cgroup/unified/"$BOX_NAME"; do
    if [ -d "$tree" ]; then find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
  done
  rmdir "$BOX_WORK"
  exit "$status"
}

enter_cgroup() {
  # The cgroup namespace starts where its first process stands: step into a group of our own before.
  mount --make-rprivate /
  mount -t cgroup2 none "$BOX_WORK"
  mkdir "$BOX_WORK/$BOX_NAME"
  echo $$ >"$BOX_WORK/$BOX_NAME/cgroup.procs"
  umount "$BOX_WORK"
  exec unshare --cgroup bash "$0" @boot "$@"
}

boot() {
  local script=$1 output=$2 root=$BOX_WORK/root pair unit
  shift 2
  mount --make-rprivate /
  ip link set lo up
  mount -t tmpfs -o size=1G none "$BOX_WORK"
  mkdir "$BOX_WORK/changes" "$BOX_WORK/work" "$root"
  mount -t overlay none -o "lowerdir=/,upperdir=$BOX_WORK/changes,workdir=$BOX_WORK/work" "$root"
  mount -t proc none "$root/proc"
  mount -t sysfs none "$root/sys"
  mount -t cgroup2 none "$root/sys/fs/cgroup"
  mount -t tmpfs none "$root/run"
  mount -t tmpfs none "$root/tmp"
  mount --rbind /dev "$root/dev"
  for pair in "$output:/box" "$@"; do
    mkdir -p "$root${pair#*:}"
    mount --bind "${pair%%:*}" "$root${pair#*:}"
    if [ "${pair#*:}" != /box ]; then mount -o remount,bind,ro "$root${pair#*:}"; fi
  done
  cp "$script" "$root/run/box-script"
  write_units "$root/etc/systemd/system"
  cd "$root"
  mkdir -p .outside
  pivot_root . .outside
  cd /
  umount -l /.outside
  mount --make-rshared /
  exec env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=box.target --show-status=no --log-target=journal
}

write_units() {
  # A target of its own keeps everything out that this machine would start.
  cat >"$1/box.target" <<'UNIT'
[Unit]
Requires=sysinit.target sockets.target box.service
After=sysinit.target
AllowIsolate=yes
UNIT
  cat >"$1/box.service" <<'UNIT'
[Unit]
After=sysinit.target

[Service]
Type=oneshot
TimeoutStartSec=infinity
StandardOutput=append:/box/log
StandardError=inherit
ExecStart=/bin/bash /run/box-script
ExecStopPost=/bin/bash -c 'case $EXIT_STATUS in [0-9]*) ;; *) EXIT_STATUS=99 ;; esac; systemctl --no-block exit $EXIT_STATUS'
UNIT
  for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-timesyncd.service systemd-networkd.service systemd-networkd.socket systemd-logind.service; do
    ln -sf /dev/null "$1/$unit"
  done
  : >"${1%/systemd/system}/fstab"
}

case "${1:-}" in
@cgroup) shift; enter_cgroup "$@" ;;
@boot) shift; boot "$@" ;;
*) enter_namespaces "$(realpath "$1")" "$(realpath "$2")" "${@:3}" ;;
esac
