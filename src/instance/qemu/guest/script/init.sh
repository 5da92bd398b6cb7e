#!/bin/busybox sh
# The first process of a guest, as far as all instances of an image with the same kernel and size have it in common.
# What is not built into the shell costs a guest without KVM some milliseconds, so little of that is here. The kernel's
# command line says how many layers the root has (`croft_layers`), whether they share a controller, and how many processes
# and threads there may be.

PATH=/bin

# Waits so many seconds without making a process, which would take longer than that: nobody writes to the pipe.
nap() {
  read -r -t "$1" _ <>/run/never
}

mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t sysfs sysfs /sys
exec </dev/null >/dev/ttyS0 2>&1
while read -r module; do
  # What it drives is found later: `begin_randomness`.
  [ "$module" != virtio_rng.ko ] || echo 0 >/sys/bus/virtio/drivers_autoprobe
  insmod "/croft/module/$module"
done </croft/modules
echo 1 >/sys/bus/virtio/drivers_autoprobe

mkfifo /run/never
mkfifo -m 666 /run/out /run/err
mkdir -p /dev/pts
{
  echo "cgroup /cgroup cgroup2 nosuid,nodev,noexec 0 0"
  echo "sysfs /stage/sys sysfs ro,nosuid,nodev,noexec 0 0"
  echo "devpts /stage/dev/pts devpts nosuid,noexec,ptmxmode=0666,mode=0620,gid=5 0 0"
  echo "shm /stage/dev/shm tmpfs nosuid,noexec,nodev,mode=1777,size=64m 0 0"
  echo "mqueue /stage/dev/mqueue mqueue nosuid,noexec,nodev 0 0"
  echo "/stage/dev/pts /dev/pts none bind 0 0"
  echo "/bin/busybox /stage/dev/.croft/busybox none bind 0 0"
} >/run/fstab
# The topmost layer is what every program expects to find and no image knows. Disks are counted from the first layer;
# those of many layers share a controller, which says in its own time what it has, and in no order.
lower=
number=0
if [ -n "$croft_controller" ]; then
  while read -r module; do insmod "/croft/module/$module"; done </croft/modules-controller
  while [ "$number" -lt "$croft_layers" ]; do
    until set -- "/sys/bus/scsi/devices/0:0:0:$number/block/"* && [ -b "/dev/${1##*/}" ]; do nap 0.001; done
    mkdir -p "/layer/$number"
    echo "/dev/${1##*/} /layer/$number erofs ro 0 0" >>/run/fstab
    lower=":/layer/$number$lower"
    number=$((number + 1))
  done
  writable=/dev/vda
else
  for letter in a b c d e f g h i j k l m n o p q r s t u v w x y z; do
    [ "$number" -lt "$croft_layers" ] || break
    mkdir -p "/layer/$number"
    echo "/dev/vd$letter /layer/$number erofs ro 0 0" >>/run/fstab
    lower=":/layer/$number$lower"
    number=$((number + 1))
  done
  writable=/dev/vd$letter
fi
lower=/inject$lower
mount -a -T /run/fstab
echo "+memory +pids" >/cgroup/cgroup.subtree_control
mkdir /cgroup/program
# The program gets fewer processes than there are, so that some are left for us however many it makes; the kernel's own
# threads are among them.
echo "$croft_threads" >/proc/sys/kernel/threads-max
most_pids=$((croft_threads - 256))
ip link set lo up

# What the program writes goes through pipes: a port can be opened only once, and programs open /dev/stderr again.
until [ -c /dev/vport*p7 ]; do nap 0.001; done 2>/dev/null
for port in /dev/vport*p1; do port=${port%1}; done
cat /run/out >"${port}2" 2>/dev/null &
relay_out=$!
cat /run/err >"${port}3" 2>/dev/null &
relay_err=$!
exec 5<>/run/out 6<>/run/err 3<>"${port}1"

# The kernel's own thread may ask the host for randomness before its driver does, which then waits until there is some; and
# a guest whose memory is to be saved is given none. So nobody waits for this one.
begin_randomness() {
  for device in /sys/bus/virtio/devices/*; do
    read -r kind <"$device/device"
    [ "$kind" != 0x0004 ] || echo "${device##*/}" >/sys/bus/virtio/drivers/virtio_rng/bind
  done 2>/dev/null
}

# What is begun now need not be begun when there is something to do: shells that wait for a command, `mount` that waits for
# what to mount, and a shell that waits for its program with the rights that most programs have.
mkdir /run/spare
mkfifo /run/mounts /run/runner
spares=
for number in 1 2 3 4 5 6; do
  mkfifo "/run/spare/$number"
  (
    exec 3>&- 5>&- 6>&-
    [ "$number" != 6 ] || begin_randomness
    read -r line <"/run/spare/$number"
    eval "exec $line"
  ) &
  eval "spare_$number=$!"
  spares="$spares$number "
done
(
  exec 3>&- 5>&- 6>&-
  exec mount -a -T /run/mounts 2>/run/mount-error
) &
mounter=$!
. /croft/usual-root.sh
# A shell that starts something beside itself has it ignore what a terminal's keys send, which no program expects and which
# no shell can take back: env does (`plainly`).
plainly="/croft/lib/loader --library-path /croft/lib /croft/bin/env --default-signal=INT,QUIT"
(
  exec 3>&- 5>&- 6>&-
  echo 0 >/cgroup/program/cgroup.procs
  read -r usual </croft/usual-capabilities
  exec $plainly /croft/lib/loader --library-path /croft/lib /croft/bin/setpriv --no-new-privs --reuid 0 --regid 0 \
    "${root_groups:+--groups=}${root_groups:---clear-groups}" --bounding-set="-all$usual" --inh-caps=-all \
    --ambient-caps=-all -- /bin/busybox sh /croft/runner.sh
) </dev/null >/run/out 2>/run/err &
runner=$!
exec 8<>/run/mounts
prepared=
. /croft/guest.sh
await_launch
