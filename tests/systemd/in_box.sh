# Runs as root under the box's own systemd: install the wheel as docs/how-to/run-as-a-service.md says,
# start it, ask it, stop it. What was seen goes to /box/seen as NAME=VALUE lines for the test to judge.
set -euo pipefail
export LC_ALL=C

seen() { printf '%s=%s\n' "$1" "$2" >>/box/seen; }
property() { systemctl show --property="$1" --value fedd.service; }
# A daemon may answer just before systemd has read that it is ready.
settled() {
  for _ in $(seq 100); do
    if [ "$(property ActiveState)" != activating ]; then break; fi
    sleep 0.1
  done
  property ActiveState
}
trap 'systemctl status --no-pager --lines=0 fedd.service fedd.socket || true; journalctl --no-pager -o cat -u fedd.service | tail -n 60 || true' EXIT

# The interpreter of the tests may live where the service must not look, so it appears under /opt/python.
if [ -d /opt/python/lib ]; then
  echo /opt/python/lib >/etc/ld.so.conf.d/box.conf
  ldconfig
fi
"$(echo /opt/python/bin/python3.[0-9]*[0-9])" -m venv /opt/fedd
/opt/fedd/bin/python -m pip install --quiet --no-index --no-deps /opt/wheel/*.whl
# The dependencies are the ones that the tests use.
echo /opt/dependencies >"$(echo /opt/fedd/lib/python3.*/site-packages)/dependencies.pth"

share=/opt/fedd/share/fedd/systemd
install -m 644 "$share"/fedd.service "$share"/fedd.socket /etc/systemd/system/
install -m 644 -D "$share"/sysusers.d/fedd.conf /etc/sysusers.d/fedd.conf
install -m 644 -D "$share"/tmpfiles.d/fedd.conf /etc/tmpfiles.d/fedd.conf
systemd-sysusers
systemd-tmpfiles --create fedd.conf
systemctl daemon-reload
seen verify "$(systemd-analyze verify fedd.service fedd.socket 2>&1 | tr '\n' ' ')"

systemctl start fedd.socket
seen socket_mode "$(stat --format '%a %U %G' /run/fedd.sock)"
systemctl start fedd.service
seen started "$(property ActiveState)/$(property SubState)"
seen ready_us "$(($(property ActiveEnterTimestampMonotonic) - $(property ExecMainStartTimestampMonotonic)))"
seen status "$(/opt/fedd/bin/fedctl --json status | tr '\n' ' ')"
seen status_line "$(property StatusText)"
seen user "$(stat --format %U "/proc/$(property MainPID)")"
seen state_dir "$(stat --format '%a %U' /var/lib/fedd/)"
seen nobody "$(setpriv --reuid=nobody --clear-groups --regid=nogroup /opt/fedd/bin/fedctl status >/dev/null 2>&1; echo $?)"

# A worker with NumPy under all of the unit's restrictions.
/opt/fedd/bin/fedctl init plant7 >/dev/null
/opt/fedd/bin/fedctl set x 2.5 >/dev/null
seen run "$(/opt/fedd/bin/fedctl --json run consensus --input x | tr '\n' ' ')"
seen confined "$(/opt/fedd/bin/fedctl status | grep '^confined' || true)"

# A network that comes after the start: its address is told, and multicast DNS is spoken there.
ip link add late0 type bridge
ip address add 192.0.2.9/24 dev late0
ip address add 2001:db8::9/64 dev late0 nodad
ip link set late0 up
for _ in $(seq 20); do
  late=$(/opt/fedd/bin/fedctl --json status | grep -o /ip4/192.0.2.9/tcp/4747 | head -n 1 || true)
  if [ -n "$late" ]; then break; fi
  sleep 0.5
done
seen late "$late"
seen multicast "$(grep -c :14E9 "/proc/$(property MainPID)/net/udp" || true) $(grep -c :14E9 "/proc/$(property MainPID)/net/udp6" || true)"
seen discovery_problems "$(journalctl --no-pager -o cat -u fedd.service | grep -c 'cannot be found\|cannot see' || true)"
other=12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq
seen by_name "$(/opt/fedd/bin/fedctl connect "/dns4/localhost/tcp/4747/p2p/$other" 2>&1 | tr '\n' ' ')"

systemctl reload fedd.service
seen reloaded "$(property ActiveState)"

before=$(property MainPID)
kill -KILL "$before"
/opt/fedd/bin/fedctl --json status >/dev/null # waits in the socket until the next daemon takes it
seen after_kill "$(settled) restarts $(property NRestarts)"

systemctl stop fedd.service
seen stopped "$(property ActiveState) $(property Result) $(property ExecMainStatus)"
seen socket_stays "$(systemctl is-active fedd.socket)"
seen activated "$(/opt/fedd/bin/fedctl --json status >/dev/null; settled)"
systemctl stop fedd.socket fedd.service
seen left_over "$(pgrep --count --uid fedd || true)"
