# Waits for what to become, with the rights of a usual root: the text of a launch's program, up to a dot.

unset_own() {
  unset HOME TERM SHLVL croft_layers croft_controller croft_threads
}

usual_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The arguments are those of enter.sh, of which the user and the rights are as they are here.
enter() {
  _c_directory=$3
  shift 8
  [ -n "${HOME+set}" ] || export HOME="$_c_home"
  unset PWD OLDPWD
  [ "$_c_directory" != / ] || exec chroot /image "$@"
  exec chroot /image /dev/.croft/busybox sh -c 'cd "$0" && unset PWD OLDPWD SHLVL && exec "$@"' "$_c_directory" "$@"
}

exec 7</run/runner
_c_text=
while IFS= read -r _c_line <&7; do
  [ "$_c_line" != . ] || break
  _c_text="$_c_text$_c_line
"
done
exec 7<&-
eval "$_c_text"
