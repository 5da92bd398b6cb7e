# Runs inside the root: mounts what the launch named. A failure is told to the host, and nothing else is tried.

place() {
  mkdir -p "$1"
}

place_file() {
  mkdir -p "${1%/*}/" && { [ -e "$1" ] || : >"$1"; }
}

bind_read_only() {
  mount -o bind "$1" "$2" && mount -o remount,bind,ro "$2"
}

# tag, name of the file in what is served, and its place
bind_shared() {
  mkdir -p "/proc/1/root/run/shared/$1" &&
    mount -t virtiofs -o nosuid,nodev "$1" "/proc/1/root/run/shared/$1" &&
    mount -o bind "/proc/1/root/run/shared/$1/$2" "$3"
}

failed() {
  echo "fault failed mount in the guest: $1" >&3
  exit 1
}

. /proc/1/root/run/launch-mounts
