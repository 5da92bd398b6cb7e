# What the first process does with a launch: a script that the host sends, which calls these functions.
#
# The control port carries lines. A write to it waits until the host is there, and a read ends when the host goes. The
# host begins with `hello`, is told `ready` or `running <pid>`, and sends one launch; it may have what all launches have in
# common done before (`prepare`). Afterwards it asks, each line with a mark that the answer begins with. A daemon that was killed may leave half a line, so the host begins with a newline.

await_launch() {
  while :; do
    echo >&3
    while read -r verb length <&3; do
      case $verb in
      hello) echo ready >&3 ;;
      prepare) prepare "$length" && echo prepared >&3 ;;
      launch) take_lines && follow_launch ;;
      esac
    done
  done
}

# The launch may give up with `return`, having told why.
follow_launch() {
  eval "$taken"
}

# Lines from the host up to one that is a dot alone. Read by the shell itself: another program would take longer to begin
# than this takes to end. Fails when the host went away meanwhile.
take_lines() {
  taken=
  while IFS= read -r line <&3; do
    [ "$line" = . ] && return
    taken="$taken$line
"
  done
  return 1
}

# The next so many bytes from the host, as a file.
take() {
  : >"$2"
  [ "$1" -eq 0 ] && return
  dd bs="$1" count=1 iflag=fullblock of="$2" <&3 2>/dev/null
  [ "$(wc -c <"$2")" -eq "$1" ]
}

# Runs a command of busybox in a shell that waits already: making one takes a guest without KVM longer than most commands.
# Without one left it is made all the same.
swiftly() {
  if [ -z "$spares" ]; then
    eval "$*"
    return
  fi
  spare=${spares%% *}
  spares=${spares#* }
  echo "$*" >"/run/spare/$spare"
  eval "wait \$spare_$spare"
}

# Fresh randomness: two guests that were resumed from the same memory must not make the same numbers. The host gives none
# before; here the kernel waits until it has enough.
reseed() {
  read -r -n 1 random </dev/random
}

# What every program expects to find, and only the host knows: the name, then addresses of resolvers.
name() {
  echo "$1" >/proc/sys/kernel/hostname
  echo "$1" >/inject/etc/hostname
  # With a resolver the own name is asked there, and is the address that others reach; without one it is a loopback one.
  {
    echo "127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback"
    [ $# -gt 1 ] || echo "127.0.1.1	$1"
  } >/inject/etc/hosts
  shift
  for resolver; do echo "nameserver $resolver"; done >/inject/etc/resolv.conf
}

# interface, its hardware address, addresses with prefixes
nic() {
  swiftly ip link set "$1" address "$2" up
  interface=$1
  shift 2
  for address; do
    # Nobody else has it: the kernel need not listen for a while before it may be used.
    case $address in *:*) echo 0 >"/proc/sys/net/ipv6/conf/$interface/accept_dad" ;; esac
    swiftly ip addr add "$address" dev "$interface"
  done
}

# Whether interfaces give themselves an address, made of the hardware's: 0, or not: 1.
by_themselves() {
  for interface in /proc/sys/net/ipv6/conf/eth*; do
    [ ! -e "$interface" ] || echo "$1" 2>/dev/null >"$interface/addr_gen_mode"
  done
}

# A setting of this kernel, by its path, and the value it gets.
kernel_setting() {
  echo "$2" 2>/dev/null >"/proc/sys/$1" && return
  echo "fault invalid setting of the kernel: $1 cannot be $2" >&3
  return 1
}

# bytes, pids: either may be `max`
limit() {
  echo "$1" >/cgroup/program/memory.max
  [ -e /cgroup/program/memory.swap.max ] && echo 0 >/cgroup/program/memory.swap.max
  pids=$2
  [ "$pids" != max ] && [ "$pids" -lt "$most_pids" ] || pids=$most_pids
  echo "$pids" >/cgroup/program/pids.max
}

# Puts the root together. What is written goes to a disk, to memory, or to a directory that the host shares. `mount` runs
# already and reads what to mount from a pipe (8), line by line. A bundle is a directory whose files in /etc are the caller's.
assemble() {
  [ "$1" != "$prepared" ] || return 0
  case $1 in
  share | bundle)
    mount -t virtiofs root /image
    mkdir -p /image/proc /image/sys /image/dev
    [ "$1" = bundle ] || inject
    ;;
  *) assemble_layers "$1" || return ;;
  esac
  echo "proc /image/proc proc nosuid,noexec,nodev 0 0
/stage/sys /image/sys none rbind 0 0
/stage/dev /image/dev none rbind 0 0" >&8
  exec 8>&-
  wait "$mounter"
  [ ! -s /run/mount-error ] || fail_to_mount
}

# What a launch would begin with, done before there is one, for a memory that many go on from: interfaces are up, and the
# root is put together (`disk`, `memory`) or not (`nothing`). What `name` writes later is in the lowest layer, where nobody
# has looked yet.
prepare() {
  by_themselves 1
  for interface in /sys/class/net/eth*; do ip link set "${interface##*/}" up; done
  [ "$1" = nothing ] || {
    for name in hosts hostname resolv.conf; do : >"/inject/etc/$name"; done
    assemble "$1" || return
    # What `begin` looks for is known by then not to be there.
    is_usual_still || :
    busybox sync
  }
  prepared=$1
}

inject() {
  mkdir -p /image/etc
  for name in hosts hostname resolv.conf; do
    [ -e "/image/etc/$name" ] || : >"/image/etc/$name"
    echo "/inject/etc/$name /image/etc/$name none bind 0 0" >&8
  done
}

fail_to_mount() {
  read -r why </run/mount-error
  echo "fault failed put the root together: $why" >&3
  return 1
}

assemble_layers() {
  if [ "$1" = disk ]; then
    echo "$writable /writable ext4 discard,noinit_itable,no_prefetch_block_bitmaps 0 0" >&8
    until [ -d /writable/lost+found ]; do
      # What `mount` says is why it cannot.
      [ ! -s /run/mount-error ] || fail_to_mount || return
      nap 0.001
    done
    # From an earlier run, with another address perhaps.
    [ ! -d /writable/upper/etc ] ||
      rm -f /writable/upper/etc/hosts /writable/upper/etc/hostname /writable/upper/etc/resolv.conf
  fi
  [ -d /writable/work ] || swiftly mkdir -p /writable/upper /writable/work
  echo "root /image overlay lowerdir=$lower,upperdir=/writable/upper,workdir=/writable/work 0 0" >&8
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
  unset HOME TERM SHLVL croft_layers croft_controller croft_threads USER LOGNAME SHELL MAIL SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_ORIGINAL_COMMAND
}

# Makes the console the terminal that the program is controlled by.
on_terminal() {
  shift
  exec $plainly /bin/setsid -c chroot /image /proc/1/root/bin/busybox sh /proc/1/root/croft/enter.sh "$@"
}

# What most programs are run with.
usual_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# What comes by dropbear belongs to the program's group and network from here on.
join_program() {
  echo 0 >/cgroup/program/cgroup.procs
  through="nsenter -t 1 -n"
}

# Becomes a program inside the root, by way of enter.sh, whose arguments these are.
enter() {
  exec ${through:-$plainly} /bin/chroot /image /proc/1/root/bin/busybox sh /proc/1/root/croft/enter.sh "$@"
}

# Whether nobody wrote who root is since the image was made.
is_usual_still() {
  [ ! -e /writable/upper/etc/passwd ] && [ ! -e /writable/upper/etc/group ]
}

# Runs what `program_text` says with this input, output and errors, and ends the guest when it ends. Root as most images
# have it becomes a shell that waits already, if the launch says that it may (`usual`).
begin() {
  if [ "$usual:$usual_root" = yes:yes ] && is_usual_still &&
    { [ -d "/image$usual_directory" ] || mkdir -p "/image$usual_directory"; }; then
    main=$runner
    {
      [ "$1" = /dev/null ] || echo "exec <$1"
      echo "_c_home='$root_home'
$program_text
."
    } >/run/runner
  else
    kill -9 "$runner"
    (
      exec 5>&- 6>&-
      echo 0 >/cgroup/program/cgroup.procs
      eval "$program_text"
    ) <"$1" >"$2" 2>"$3" &
    main=$!
  fi
  tell_when_running
  answer &
  wait "$main"
  finish $?
}

# The program runs when it is no longer one of ours: a signal that came before would not find its handler. One that is
# itself called so is told of a little later; one that could not begin is a zombie (Z) by now, and told why. Its command
# line does not tell: that is empty, too, for as long as one program takes the place of another. One that has ended already
# is not there to be read, which is no message for whoever reads the program's own.
tell_when_running() {
  tries=0
  while read -r name 2>/dev/null <"/proc/$main/comm" && [ "$tries" -lt 1000 ]; do
    case $name in init | busybox | loader) ;; *) break ;; esac
    # Asked later than at once, as most have begun by then.
    [ "$tries" -lt 3 ] || { read -r _ _ state _ 2>/dev/null <"/proc/$main/stat" && [ "$state" != Z ]; } || return
    nap 0.001
    tries=$((tries + 1))
  done
  echo "started $main" >&3
  [ -z "$prepared" ] || by_themselves 0
}

finish() {
  echo 1 >/cgroup/program/cgroup.kill
  exec 5>&- 6>&-
  wait "$relay_out" "$relay_err"
  command eval "swiftly busybox sync"
  count_oom_kills
  echo "$1 $oom_kills" >"${port}5"
  # The kernel's own farewell is nobody's log.
  echo 0 >/proc/sys/kernel/printk
  reboot -nf
}

count_oom_kills() {
  while read -r key oom_kills; do
    [ "$key" != oom_kill ] || return
  done </cgroup/program/memory.events
}

# Asked by the host while the program runs. A shell that cannot make a process ends; one that has `command` do it goes on.
answer() {
  exec 5>&- 6>&-
  shell=
  while :; do
    while read -r mark verb first second <&3; do
      [ "$mark" != hello ] || echo "running $main" >&3
      command eval answer_one || echo "$mark failed" >&3
    done
    echo >&3
  done
}

answer_one() {
  case $verb in
  kill) kill "-$first" "${second:-$main}" 2>/dev/null && echo "$mark ok" >&3 || echo "$mark gone" >&3 ;;
  size) stty rows "$first" cols "$second" </dev/hvc0 2>/dev/null && echo "$mark ok" >&3 ;;
  limit) limit "$first" "$second" && echo "$mark ok" >&3 ;;
  stat) measure "$mark" >&3 ;;
  processes) list_processes "$mark" >&3 & ;;
  clock) date -s "@$first" >/dev/null && echo "$mark ok" >&3 ;;
  shell) take "$first" /run/host-key.new && serve_shell && echo "$mark ok" >&3 ;;
  esac
}

# mark, memory in use, of which can be taken back at once, pids, OOM kills
measure() {
  read -r memory </cgroup/program/memory.current
  while read -r key value; do
    [ "$key" = inactive_file ] && break
  done </cgroup/program/memory.stat
  read -r pids </cgroup/program/pids.current
  count_oom_kills
  echo "$1 $memory $value $pids $oom_kills"
}

# mark, and of each process of the program's: pid, parent, user, ticks of the processor it used, pages of memory it has,
# ticks from the boot to its beginning, seconds from the boot until now, and its words. At last the mark and `end`.
list_processes() {
  mark=$1
  while read -r pid; do
    user= stat=
    while read -r key user _; do [ "$key" != Uid: ] || break; done <"/proc/$pid/status"
    # What the program calls itself may hold spaces and line ends: what is counted follows its last parenthesis.
    while read -r line; do stat=$line; done <"/proc/$pid/stat"
    read -r name <"/proc/$pid/comm"
    words=$(head -c 4096 "/proc/$pid/cmdline" | tr '\0\n' '  ')
    read -r now _ </proc/uptime
    set -- ${stat##*) }
    name_user "$user"
    [ $# -lt 22 ] || echo "$mark $pid $2 $user $((${12} + ${13})) ${22} ${20} $now ${words:-[$name]}"
  done </cgroup/program/cgroup.procs 2>/dev/null
  echo "$mark end"
}

# As the image calls the user of that number.
name_user() {
  [ -f /image/etc/passwd ] || return
  while IFS=: read -r login _ number _; do
    [ "$number" != "$1" ] || { user=$login && return; }
  done </image/etc/passwd
}

# Programs that are run in the instance come by dropbear, which begins when the host first asks for it. A host that knows it
# by another key (it lost the one before: the guest was suspended, or the daemon is a newer one) gets a new one.
serve_shell() {
  if [ -n "$shell" ]; then
    cmp -s /run/host-key.new /run/host-key && return
    kill -9 "-$shell"
  fi
  mv /run/host-key.new /run/host-key
  (
    exec 3>&-
    exec setsid unshare -n /bin/busybox sh /croft/shell.sh "${port}6"
  ) &
  shell=$!
}
