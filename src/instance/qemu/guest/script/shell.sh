# Carries what comes through a port (7) to dropbear, which takes nothing but sockets. It has a network of its own, where
# the program of the instance cannot knock: whoever comes by the port needs no key.

PATH=/bin
ip link set lo up
/croft/lib/loader --library-path /croft/lib /croft/bin/dropbear -F -B -j -k -r /run/host-key -p 127.0.0.1:22 \
  <&- >&- 2>&- &

listens() {
  while read -r line; do
    case $line in *" 0100007F:0016 "*) return ;; esac
  done </proc/net/tcp
  return 1
}

until listens; do usleep 5000; done
while :; do
  exec 7<>"$1"
  # Until somebody comes.
  echo >&7
  nc 127.0.0.1 22 <&7 >&7
  exec 7>&-
done
