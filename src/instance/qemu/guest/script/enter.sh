# Runs inside the root, as root: finds the user and the program there, and becomes the program.
#
# Arguments: the descriptor that is told `started <pid>` or `fault …` (3 is the control port), user, working directory, bounding set, ambient
# capabilities, an option of setpriv, limits (each a letter of `ulimit`, the hard and the soft value), how many words of
# extra environment follow, those words, and the program. The user may be followed by a group, and that by further groups
# (`7:8:9,10`). Variables that are exported are the program's own, so the names here begin with `_c_`.

_c_tell=$1 _c_user=$2 _c_directory=$3 _c_bounding=$4 _c_ambient=$5 _c_locked=$6 _c_limits=$7 _c_extra=$8
shift 8
_c_tools=/proc/1/root/croft
[ "$_c_bounding" != usual ] || read -r _c_bounding <"$_c_tools/usual-capabilities"
set -f

_c_fail() {
  echo "fault $*" >&"$_c_tell"
  exit 127
}

# Takes the next field off a line of passwd or group.
_c_field() {
  _c_value=${_c_rest%%:*}
  _c_rest=${_c_rest#*:}
}

_c_number() {
  case $1 in "" | *[!0-9]*) return 1 ;; esac
}

# By name first, else by number, which need not be listed. Files are read by the shell itself: where the program may start no
# further process, there is none to read them for us.
_c_find_user() {
  while IFS= read -r _c_line || [ -n "$_c_line" ]; do
    case $_c_line in "$_c_name":*:*:*:* | *:*:"$_c_name":*) ;; *) continue ;; esac
    _c_rest=$_c_line:
    _c_field && _c_listed=$_c_value
    _c_field
    _c_field && _c_listed_uid=$_c_value
    [ "$_c_listed" = "$_c_name" ] || { [ "$_c_listed_uid" = "$_c_name" ] && [ -z "$_c_login" ]; } || continue
    _c_login=$_c_listed _c_uid=$_c_listed_uid
    _c_field && _c_gid=$_c_value
    _c_field
    _c_field
    case $_c_value in /*) _c_home=$_c_value ;; esac
    [ "$_c_listed" = "$_c_name" ] && break
  done 2>/dev/null </etc/passwd
  [ -n "$_c_uid" ] || _c_uid=$_c_name
  _c_number "$_c_uid" || _c_fail "invalid user \"$_c_name\" is not in the image's /etc/passwd"
}

_c_find_group() {
  while IFS= read -r _c_line || [ -n "$_c_line" ]; do
    case $_c_line in "$_c_group":*:*) ;; *) continue ;; esac
    _c_rest=${_c_line#*:*:}:
    _c_field && _c_gid=$_c_value
    return
  done 2>/dev/null </etc/group
  _c_number "$_c_group" || _c_fail "invalid group \"$_c_group\" is not in the image's /etc/group"
  _c_gid=$_c_group
}

# Those that name the user as a member.
_c_find_groups() {
  while IFS= read -r _c_line || [ -n "$_c_line" ]; do
    case $_c_line in *[:,]"$_c_login" | *[:,]"$_c_login",*) ;; *) continue ;; esac
    _c_rest=${_c_line#*:*:}:
    _c_field
    case ,${_c_rest%:}, in *,"$_c_login",*) ;; *) continue ;; esac
    _c_number "$_c_value" && [ "$_c_value" != "$_c_gid" ] && _c_groups=${_c_groups:+$_c_groups,}$_c_value
  done 2>/dev/null </etc/group
}

# The hard value first, for both: so none of them is ever below the other.
_c_limit() {
  while [ $# -gt 0 ]; do
    { ulimit "-$1" "$2" && ulimit "-S$1" "$3"; } 2>/dev/null || _c_fail "failed limit ulimit -$1 $3:$2 is not possible"
    shift 3
  done
}

_c_is_program() {
  [ -f "$1" ] && [ -x "$1" ]
}

_c_find_program() {
  case $1 in
  */*) _c_is_program "$1" && return ;;
  *)
    for _c_place in $PATH; do
      _c_is_program "${_c_place:-.}/$1" && return
    done
    ;;
  esac
  _c_fail "program $1"
}

_c_name=${_c_user%%:*}
_c_name=${_c_name:-0}
_c_login='' _c_uid='' _c_gid=0 _c_home=/ _c_groups=''
_c_find_user
case $_c_user in
*:*:*)
  _c_groups=${_c_user##*:} _c_user=${_c_user%:*}
  _c_group=${_c_user#*:} && _c_find_group
  ;;
*:*) _c_group=${_c_user#*:} && _c_find_group ;;
*) [ -z "$_c_login" ] || _c_find_groups ;;
esac
# Another user than root has of capabilities only what was asked for by name.
[ "$_c_uid" -eq 0 ] && _c_ambient=''
# Handed over for this user to read, and for nobody else.
[ "$_c_tell" = 3 ] && [ -d /proc/1/root/run/file ] && chown -R "$_c_uid:$_c_gid" /proc/1/root/run/file
[ -n "${HOME+set}" ] || export HOME="$_c_home"

# Only the first program makes a directory that the image forgot.
[ "$_c_tell" = 3 ] && mkdir -p "$_c_directory" 2>/dev/null
cd "$_c_directory" 2>/dev/null || _c_fail "invalid working directory $_c_directory does not exist in the instance"
IFS=:
eval "_c_program=\${$((_c_extra + 1))}"
_c_find_program "$_c_program"
IFS=' '
[ "$_c_extra" -eq 0 ] || set -- /dev/.croft/busybox env "$@"

set -- ${_c_locked:+"$_c_locked"} --reuid "$_c_uid" --regid "$_c_gid" --bounding-set="-all$_c_bounding" \
  --inh-caps="-all$_c_ambient" --ambient-caps="-all$_c_ambient" -- "$@"
if [ -n "$_c_groups" ]; then set -- --groups "$_c_groups" "$@"; else set -- --clear-groups "$@"; fi
_c_limit $_c_limits
unset PWD OLDPWD
# Of the first program the first process tells, when it really runs.
if [ "$_c_tell" = 3 ]; then exec 3>&-; else echo "started $$" >&"$_c_tell"; fi
exec "$_c_tools/lib/loader" --library-path "$_c_tools/lib" "$_c_tools/bin/setpriv" "$@"
