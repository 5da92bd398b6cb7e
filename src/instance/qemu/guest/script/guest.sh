# What the first process does with a launch: a script that the host sends, which calls these functions.
#
# The control port carries lines. A write to it waits until the host is there, and a read ends when the host goes. The
# host begins with `hello`, is told `ready` or `running <pid>`, and sends one launch; afterwards it asks, each line with a
# mark that the answer begins with. A daemon that was killed may leave half a line, so the host begins with a newline.

await_launch() {
  while :; do
    echo >&3
    while read -r verb length <&3; do
      case $verb in
      hello) echo ready >&3 ;;
      launch) take "$length" /run/launch && . /run/launch ;;
      esac
    done
  done
}

# The next so many bytes from the host, as a file. Fails when the host went away meanwhile.
take() {
  : >"$2"
  [ "$1" -eq 0 ] && return
  dd bs="$1" count=1 iflag=fullblock of="$2" <&3 2>/dev/null
  [ "$(wc -c <"$2")" -eq "$1" ]
}

# Fresh randomness: two guests that were resumed from the same memory must not make the same numbers.
reseed() {
  [ -e /croft/module/virtio_rng.ko ] && insmod /croft/module/virtio_rng.ko
}

# interface, its hardware address, address with prefix
nic() {
  ip link set "$1" address "$2"
  ip link set "$1" up
  ip addr add "$3" dev "$1"
}

# bytes, pids: either may be `max`
limit() {
  echo "$1" >/cgroup/program/memory.max
  [ -e /cgroup/program/memory.swap.max ] && echo 0 >/cgroup/program/memory.swap.max
  echo "$2" >/cgroup/program/pids.max
}

# Puts the root together. What is written goes to a disk, to memory, or to a directory that the host shares.
assemble() {
  if [ "$1" = share ]; then
    mount -t virtiofs root /image
    mkdir -p /image/proc /image/sys /image/dev /image/etc
    for name in hosts hostname resolv.conf; do
      [ -e "/image/etc/$name" ] || : >"/image/etc/$name"
      mount -o bind "/inject/etc/$name" "/image/etc/$name"
    done
    : >/run/fstab
  else
    assemble_layers "$1"
  fi
  {
    echo "proc /image/proc proc nosuid,noexec,nodev 0 0"
    echo "/stage/sys /image/sys none rbind 0 0"
    echo "/stage/dev /image/dev none rbind 0 0"
  } >>/run/fstab
  mount -a -T /run/fstab
}

assemble_layers() {
  if [ "$1" = disk ]; then
    mount -t ext4 -o discard,noinit_itable "$writable" /writable
    # From an earlier run, with another address perhaps.
    rm -f /writable/upper/etc/hosts /writable/upper/etc/hostname /writable/upper/etc/resolv.conf
  fi
  mkdir -p /writable/upper /writable/work
  echo "root /image overlay lowerdir=$lower,upperdir=/writable/upper,workdir=/writable/work 0 0" >/run/fstab
}

# Mounts what the launch named, with the image's root as root: its links lead nowhere else.
mount_inside() {
  chroot /image /proc/1/root/bin/busybox sh /proc/1/root/croft/inside.sh
}

load_volumes() {
  while read -r module; do insmod "/croft/module/$module"; done </croft/modules-volume
}

# Variables that the kernel, init and dropbear leave.
unset_own() {
  unset HOME TERM SHLVL croft_layers USER LOGNAME SHELL MAIL SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_ORIGINAL_COMMAND
}

# Makes the console the terminal that the program is controlled by.
on_terminal() {
  shift
  exec setsid -c chroot /image /proc/1/root/bin/busybox sh /proc/1/root/croft/enter.sh "$@"
}

# What comes by dropbear belongs to the program's group and network from here on.
join_program() {
  echo 0 >/cgroup/program/cgroup.procs
  through="nsenter -t 1 -n"
}

# Becomes a program inside the root, by way of enter.sh, whose arguments these are.
enter() {
  exec $through chroot /image /proc/1/root/bin/busybox sh /proc/1/root/croft/enter.sh "$@"
}

# Runs `program`, which the launch defined, and ends the guest when it ends.
begin() {
  (
    exec 5>&- 6>&-
    echo 0 >/cgroup/program/cgroup.procs
    program
  ) <"$1" >"$2" 2>"$3" &
  main=$!
  answer &
  serve_shell &
  tell_when_running
  wait "$main"
  finish $?
}

# The program runs when it is no longer one of ours: a signal that came before would not find its handler. One that is
# itself called so is told of a little later. A failure was told already.
tell_when_running() {
  tries=0
  while read -r name <"/proc/$main/comm" && [ "$tries" -lt 500 ]; do
    case $name in init | busybox | loader) usleep 1000 ;; *) break ;; esac
    tries=$((tries + 1))
  done
  echo "started $main" >&3
}

finish() {
  echo 1 >/cgroup/program/cgroup.kill
  exec 5>&- 6>&-
  wait "$relay_out" "$relay_err"
  echo "$1 $(oom_kills)" >"${port}5"
  # The kernel's own farewell is nobody's log.
  echo 0 >/proc/sys/kernel/printk
  reboot -f
}

oom_kills() {
  while read -r key value; do
    [ "$key" = oom_kill ] && echo "$value"
  done </cgroup/program/memory.events
}

# Asked by the host while the program runs.
answer() {
  exec 5>&- 6>&-
  while :; do
    while read -r mark verb first second <&3; do
      case $verb in
      kill) kill "-$first" "${second:-$main}" 2>/dev/null && echo "$mark ok" >&3 || echo "$mark gone" >&3 ;;
      size) stty rows "$first" cols "$second" </dev/hvc0 && echo "$mark ok" >&3 ;;
      limit) limit "$first" "$second" && echo "$mark ok" >&3 || echo "$mark failed" >&3 ;;
      stat) measure "$mark" >&3 ;;
      esac
      [ "$mark" = hello ] && echo "running $main" >&3
    done
    echo >&3
  done
}

# mark, memory in use, of which can be taken back at once, pids, OOM kills
measure() {
  read -r memory </cgroup/program/memory.current
  while read -r key value; do
    [ "$key" = inactive_file ] && break
  done </cgroup/program/memory.stat
  read -r pids </cgroup/program/pids.current
  echo "$1 $memory $value $pids $(oom_kills)"
}

# Programs that are run in the instance come by dropbear, which begins when the host first comes for it.
serve_shell() {
  exec 3>&- 5>&- 6>&- 7<>"${port}6"
  echo >&7
  exec unshare -n /bin/busybox sh /croft/shell.sh "${port}6"
}
